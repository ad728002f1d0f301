"""The pages' charts: what they enclose, and what is left of matplotlib's SVG."""

import re
from xml.etree import ElementTree

import matplotlib
import pytest

from lazyneuron.report.charts import lines, scatter
from lazyneuron.report.style import DARK, LIGHT, PAPER

SERIES = [("first", [(1, 0.1), (4, 0.4)]), ("middle", [(1, 0.2), (4, 0.5)]), ("last", [(1, 0.3), (4, 1.0)])]


def drawn(chart):
    return ElementTree.fromstring(chart["svg"])


def texts(chart):
    return [element.text for element in drawn(chart).iter("text")]


@pytest.mark.parametrize("values", [[0.9, 0.97], [0.5, 0.5], [0.0, 1.0], [0.999, 0.9991], [0.0, 0.0], [1.0, 1.0]])
def test_axes_enclose_the_points_and_stay_between_0_and_1(values):
    chart = scatter([(v, v, "a point") for v in values], title="t", x_title="x")
    ticks = [float(text) for text in texts(chart) if "." in text]
    assert 0 <= min(ticks) <= min(values) <= max(values) <= max(ticks) <= 1
    assert max(ticks) - min(ticks) >= 0.025 and len(ticks) >= 4
    box = re.findall(r"[\d.]+", drawn(chart).get("viewBox"))
    for dot in drawn(chart).iter("use"):
        assert 0 < float(dot.get("x")) < float(box[2]) and 0 < float(dot.get("y")) < float(box[3])


def test_a_point_stands_where_its_numbers_are():
    chart = scatter([(0.25, 0.5, "a"), (0.5, 0.75, "b"), (0.75, 0.5, "c")], title="t", x_title="x")
    found = {e.find("title").text[0]: e.find("g/use") for e in drawn(chart).iter("g") if e.get("class") == "dot"}
    x, y = ({k: float(use.get(axis)) for k, use in found.items()} for axis in "xy")
    assert x["b"] - x["a"] == pytest.approx(x["c"] - x["b"], abs=0.02) and x["a"] < x["b"]
    assert y["b"] < y["a"] == y["c"]  # up is less in SVG
    assert texts(chart)[-3:] == ["1", "2", "3"]


def test_the_svg_takes_colours_and_fonts_of_the_page_and_has_texts():
    chart = lines(SERIES, title="Union <density>", x_title="tokens")
    svg = chart["svg"]
    assert "tokens" in texts(chart) and "font-family" not in svg and "url(" not in svg and "xmlns" not in svg
    assert not re.search(r"#[0-9a-f]{6}\b", re.sub(r'(id|href)="[^"]*"', "", svg))
    strokes = [e.find("path").get("style") for e in drawn(chart).iter("g") if e.get("class") == "path"]
    assert [re.search(r"stroke:([^;]+)", s)[1] for s in strokes] == [
        "color-mix(in oklab, var(--fire) 0%, var(--base))",
        "color-mix(in oklab, var(--fire) 50%, var(--base))",
        "color-mix(in oklab, var(--fire) 100%, var(--base))",
    ]
    assert drawn(chart).get("aria-label") == "Union <density>" and drawn(chart).get("width") is None


def test_every_theme_has_every_colour_and_a_colour_has_one_name():
    assert set(LIGHT) == set(DARK) == set(PAPER) and len(set(LIGHT.values())) == len(LIGHT)


def test_the_same_figure_is_the_same_text_whatever_the_settings_are():
    points = [(0.1, 0.5, "a"), (0.2, 0.6, "b")]
    first, second = (scatter(points, title=title, x_title="x")["svg"] for title in ("t", "t"))
    with matplotlib.rc_context({"font.size": 30, "svg.fonttype": "path", "lines.markeredgewidth": 5}):
        before = dict(matplotlib.rcParams)
        other = scatter(points, title="t", x_title="x")["svg"]
        assert dict(matplotlib.rcParams) == before
    assert first == second == other


def test_names_inside_one_figure_do_not_meet_those_of_another():
    points = [(0.1, 0.5, "a"), (0.2, 0.6, "b")]
    one, two = (set(re.findall(r' id="([^"]*)"', scatter(points, title=t, x_title="x")["svg"])) for t in "ab")
    assert one and two and not one & two
