"""What the first page and the benchmarks' first list say of a record."""

import struct

import pytest

from lazyneuron.core.errors import DataError
from lazyneuron.core.record import Record
from lazyneuron.experiments.bench.blocks.reached import reached as grid_reached
from lazyneuron.experiments.bench.generation.front import engines_figure, front, reached
from lazyneuron.experiments.render import fill, render
from tests.experiments.bench.records import record, row

MANY = ("ours", "ours, every neuron", "other Q8_0")


def decoded(engine, speed, *, density=0.05, part="one sequence", over=None, weights="int8"):
    return {
        "case": "S", "shape": "S", "weights": weights, "rest": weights, "density": density, "part": part,
        "engine": engine, "tokens_per_s": speed, "ms": 1000 / speed, "ceiling_tokens_per_s": 2 * speed,
        "over": {} if over is None else {"other Q8_0": {"median": over, "quartiles": [over, over]}},
    }  # fmt: skip


def decodings(*more):
    rows = [
        decoded("ours", 30.0, over=1.523),
        decoded("ours, every neuron", 17.0, over=0.871),
        decoded("other Q8_0", 20.0),
        decoded("ours, compiled", 99.0),
        decoded("ours", 88.0, density=1.0, over=9.0),
        decoded("ours", 77.0, part="prefill of 256", over=8.0),
        *more,
    ]
    return Record(kind="benchmark", data={"cases": {"S": rows}}, seed=0)


def test_a_language_model_is_named_with_what_it_is_slower_at():
    text = front(decodings())
    assert "1.52 times other Q8_0; with every neuron evaluated: 0.87 times other Q8_0" in text
    assert "assets/generate-engines.png" in text and "99" not in text and "9.00" not in text
    assert reached(decodings()).startswith("- **A language model.**")


def test_without_another_engine_nothing_is_said(tmp_path):
    alone = Record(kind="benchmark", data={"cases": {"S": [decoded("ours", 30.0)]}}, seed=0)
    assert front(alone) == reached(alone) == ""
    with pytest.raises(DataError, match="--peers-python"):
        engines_figure(alone, tmp_path / "none.png")


def test_the_figure_has_a_panel_a_format(tmp_path):
    more = [decoded(name, 10.0, weights="int4", over=1.0) for name in MANY]
    engines_figure(decodings(), tmp_path / "one.png")
    engines_figure(decodings(*more), tmp_path / "two.png")
    one, two = [struct.unpack(">II", (tmp_path / name).read_bytes()[16:24]) for name in ("one.png", "two.png")]
    assert two[0] == one[0] and two[1] > one[1] + 200  # below each other, as wide as a page


def test_the_grid_is_said_in_its_extremes():
    rows = [row(vs_dense=2.0, vs_int8=1.5), row(shape="2048 x 8192", vs_dense=7.125, vs_int8=0.8), row(tokens=2)]
    text = grid_reached(record(rows))
    assert "2.00 to 7.12 times as fast as torch's dense, 0.80 to 1.50 times as fast as torch's dynamic int8" in text
    assert grid_reached(record([row(tokens=2)])) == ""


def test_marks_of_another_name_are_filled_alone(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("<!-- reached -->\nold\n<!-- /reached -->\n<!-- results -->\nkept\n<!-- /results -->\n")
    fill(page, "new\n", mark="reached")
    assert page.read_text() == "<!-- reached -->\nnew\n<!-- /reached -->\n<!-- results -->\nkept\n<!-- /results -->\n"
    with pytest.raises(SystemExit, match="no other markers"):
        fill(page, "x", mark="other")


def exported(ms):
    sizes = {"model": "M", "density": 0.05, "sequences x tokens": "1 x 60", "format": "int8"}
    row = {**sizes, "ours_ms": ms, "error_ours": 0.1, "error_openvino": 0.1}
    return Record(kind="benchmark/openvino", data={"title": "T", "rows": [row]}, seed=0)


def test_the_record_of_another_processor_stands_where_a_page_has_its_marks(tmp_path):
    for folder in ("records", "docs/assets"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "records" / "openvino.json").write_text(exported(11.5).to_json())
    (tmp_path / "records" / "openvino-avx2.json").write_text(exported(77.5).to_json())
    page, marks = tmp_path / "docs" / "export.md", "<!-- {0} -->\n<!-- /{0} -->\n"
    page.write_text(marks.format("results"))
    render(tmp_path)
    assert "11.5" in page.read_text() and "77.5" not in page.read_text()
    page.write_text(marks.format("results") + "between\n" + marks.format("results-avx2"))
    render(tmp_path)
    first, second = page.read_text().split("between")
    assert "11.5" in first and "77.5" not in first and "77.5" in second and "11.5" not in second


def test_figures_of_another_processor_have_its_name(tmp_path):
    for folder in ("records", "docs/assets"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "records" / "generate-avx2.json").write_text(decodings().to_json())
    page = tmp_path / "docs" / "index.md"
    for name in ("README.md", "docs/benchmarks.md", "docs/generate.md", "docs/index.md"):
        (tmp_path / name).write_text("<!-- decoding-avx2 -->\n<!-- /decoding-avx2 -->\n")
    render(tmp_path)
    assert "assets/generate-engines-avx2.png" in page.read_text() and "engines.png" not in page.read_text()
    assert [path.name for path in (tmp_path / "docs" / "assets").iterdir()] == ["generate-engines-avx2.png"]
