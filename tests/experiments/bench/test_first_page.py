"""What the first page and the benchmarks' first list say of a record."""

import struct

import pytest

from lazyneuron.core.errors import DataError
from lazyneuron.core.record import Record
from lazyneuron.experiments.bench.blocks.reached import reached as grid_reached
from lazyneuron.experiments.bench.generation.front import engines_figure, front, reached
from lazyneuron.experiments.render import fill
from tests.experiments.bench.records import record, row

MANY = ("ours", "ours, every neuron", "other Q8_0")


def decoded(engine, speed, *, density=0.05, part="one sequence", over=None, weights="int8"):
    return {
        "case": "S", "shape": "S", "weights": weights, "rest": weights, "density": density, "part": part,
        "engine": engine, "tokens_per_s": speed, "ms": 1000 / speed, "ceiling_tokens_per_s": 2 * speed,
        "over": {"other Q8_0": {"median": over}},
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
