import pytest

from lazyneuron.core.errors import DataError
from lazyneuron.core.record import Record
from lazyneuron.report import benchmark_markdown, markdown_table, plain_table, rich_table
from lazyneuron.report.axes import axis
from lazyneuron.report.numbers import cell, ratio, share, significant
from tests.report.records import ENVIRONMENT

ROWS = [{"case": "1 x 10", "ms": 1.2345, "ok": True}, {"case": "a | b", "ms": None, "note": "out of memory"}]


def test_plain_table():
    assert plain_table(ROWS).splitlines() == [
        "case      ms  ok   note",
        "1 x 10  1.23  yes  -",
        "a | b      -  -    out of memory",
    ]


def test_written_shares_and_ratios_are_aligned_as_numbers():
    rows = [{"density": ">0.999", "gain": "1.45x"}, {"density": "1", "gain": "10.0x"}]
    assert plain_table(rows).splitlines()[2] == "      1  10.0x"


def test_markdown_table():
    assert markdown_table(ROWS).splitlines() == [
        "| case | ms | ok | note |",
        "| --- | ---: | --- | --- |",
        "| 1 x 10 | 1.23 | yes | - |",
        "| a \\| b | - | - | out of memory |",
    ]


def test_rich_table_shows_markup_as_text():
    from rich.console import Console

    console = Console(width=80, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(rich_table([{"shape": "[bold]768[/bold]", "ms": 1.0}], title="a title"))
    text = console.export_text()
    console.file.close()
    assert "[bold]768[/bold]" in text
    assert "a title" in text


def test_benchmark_markdown_carries_its_provenance():
    record = Record(
        kind="benchmark/accelerate", data={"title": "Synthetic", "rows": ROWS}, seed=7, environment=ENVIRONMENT
    )
    text = benchmark_markdown(record)
    assert text.startswith("**Synthetic**\n\n| case |")
    assert "commit 0123456789ab with lazyneuron 0.1.0, torch 2.13.0" in text
    assert text.rstrip().endswith("(2 cores, 2 threads, avx2, fma), seed 7.*")


@pytest.mark.parametrize("data", [{}, {"rows": []}, {"rows": 3}])
def test_benchmark_without_rows(data):
    with pytest.raises(DataError, match="needs a list of rows"):
        benchmark_markdown(Record(kind="benchmark/accelerate", data=data, seed=None, environment=ENVIRONMENT))


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (1.0, "1"), (0.5, "0.500"), (0.99999, ">0.999"), (1e-5, "<0.001"), (0.9994, "0.999"), (None, "-")],
)
def test_share(value, text):
    assert share(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (8.1, "8.10"),
        (381.4, "381"),
        (9.996, "10.0"),
        (1234.5, "1234"),
        (0.01234, "0.0123"),
        (4.77e-7, "4.77e-7"),
        (-2.5, "-2.50"),
        (float("inf"), "inf"),
        (3.2e9, "3.20e9"),
        (None, "-"),
    ],
)
def test_significant(value, text):
    assert significant(value) == text


def test_cell_and_ratio():
    assert cell([1, 2.0, None]) == "1, 2.00, -"
    assert ratio(1.428) == "1.43x"
    assert ratio(None) == "-"


@pytest.mark.parametrize("values", [[0.9, 0.97], [0.5], [0.0, 1.0], [0.999, 0.9991], [0.0], [1.0]])
def test_axis_encloses_its_values_and_stays_inside(values):
    found = axis(values, start=0, end=100, within=(0.0, 1.0))
    assert found.low <= min(values) <= max(values) <= found.high
    assert found.low >= 0
    assert found.high <= 1 + 1e-12
    assert len(found.ticks) >= 2
    assert [found(t) for t in (found.low, found.high)] == [0, 100]


def test_axis_covers_its_span():
    found = axis([0.1, 0.101], start=0, end=1, span=0.05, within=(0.0, 1.0))
    assert found.high - found.low >= 0.05 - 1e-12
