import pytest

from lazyneuron.core.errors import DataError
from lazyneuron.core.record import Record
from lazyneuron.report import csv_table, html_table, markdown_table, plain_table, provenance, rich_table
from lazyneuron.report.numbers import cell, mebibytes, ratio, share, significant
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


class Drawn:
    def __html__(self):
        return "<i>drawn</i>"


def test_html_table_escapes_text_and_keeps_what_is_html():
    table = html_table([{"a<": "x & y", "n": 1.5, "bar": Drawn()}, {"a<": None, "n": 2}], emphasised=1)
    assert table.splitlines() == [
        "<table>",
        '<thead><tr><th>a&lt;</th><th class="number">n</th><th>bar</th></tr></thead>',
        "<tbody>",
        '<tr><td>x &amp; y</td><td class="number">1.50</td><td><i>drawn</i></td></tr>',
        '<tr class="emphasised"><td>-</td><td class="number">2</td><td>-</td></tr>',
        "</tbody>",
        "</table>",
    ]


@pytest.mark.parametrize("write", [plain_table, markdown_table, html_table, csv_table, rich_table])
def test_a_table_needs_a_row(write):
    with pytest.raises(DataError, match="at least one row"):
        write([])


def test_provenance_names_commit_versions_and_machine():
    text = provenance(Record(kind="demo", data={}, seed=7, environment=ENVIRONMENT))
    assert "commit 0123456789ab with lazyneuron 0.1.0, torch 2.13.0" in text
    assert text.endswith("(2 cores, 2 threads, avx2, fma), seed 7.")


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
    assert mebibytes(3 << 19) == "1.5" and mebibytes(None) == "-"
