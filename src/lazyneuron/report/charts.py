"""Geometry of the pages' line and scatter charts, for the template that draws them as SVG."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lazyneuron.report.axes import Axis, axis
from lazyneuron.report.numbers import share, significant

WIDTH, HEIGHT = 420, 280
LEFT, RIGHT, TOP, BOTTOM = 52, 404, 14, 240
_UNIT = (0.0, 1.0)


def scatter(points: Sequence[tuple[float, float, str]], *, title: str, x_title: str) -> dict[str, Any]:
    """Labelled points in the unit square, joined from left to right.

    Args:
        points: (x, y, label).
        title: above the chart.
        x_title: below the horizontal axis.
    """
    x = axis([p[0] for p in points], start=LEFT, end=RIGHT, within=_UNIT)
    y = axis([p[1] for p in points], start=BOTTOM, end=TOP, within=_UNIT)
    ordered = sorted(points)
    line = {"points": _points([(x(p[0]), y(p[1])) for p in ordered]), "label": title, "color": None}
    return _frame(x, y, title=title, x_title=x_title) | {"lines": [line], "dots": [_dot(x, y, *p) for p in ordered]}


def lines(
    series: Sequence[tuple[str, Sequence[tuple[float, float]]]], *, title: str, x_title: str, colors: Sequence[str]
) -> dict[str, Any]:
    """One line a series over a logarithmic horizontal axis, vertical axis from 0 to 1.

    Args:
        series: (label, ((x, y), ...)); x positive.
        title: above the chart.
        x_title: below the horizontal axis.
        colors: one CSS colour a series.
    """
    ticks = tuple(sorted({x for _, points in series for x, _ in points}))
    x = Axis(low=ticks[0], high=max(ticks[-1], 2 * ticks[0]), start=LEFT, end=RIGHT, ticks=ticks, log=True)
    y = Axis(low=0.0, high=1.0, start=BOTTOM, end=TOP, ticks=(0.0, 0.25, 0.5, 0.75, 1.0))
    drawn = [
        {"points": _points([(x(a), y(b)) for a, b in points]), "label": label, "color": color}
        for (label, points), color in zip(series, colors, strict=True)
    ]
    return _frame(x, y, title=title, x_title=x_title) | {"lines": drawn, "dots": []}


def _frame(x: Axis, y: Axis, *, title: str, x_title: str) -> dict[str, Any]:
    return {
        "title": title,
        "x_title": x_title,
        "width": WIDTH,
        "height": HEIGHT,
        "left": LEFT,
        "right": RIGHT,
        "top": TOP,
        "bottom": BOTTOM,
        "x_ticks": [{"at": round(x(t), 1), "text": _tick(t)} for t in x.ticks],
        "y_ticks": [{"at": round(y(t), 1), "text": _tick(t)} for t in y.ticks],
    }


def _tick(value: float) -> str:
    return f"{value:.6g}" if value == int(value) else f"{round(value, 6):g}"


def _points(pairs: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{a:.1f},{b:.1f}" for a, b in pairs)


def _dot(x: Axis, y: Axis, a: float, b: float, label: str) -> dict[str, Any]:
    at, up = round(x(a), 1), round(y(b), 1)
    right_half = at > (LEFT + RIGHT) / 2
    return {
        "x": at,
        "y": up,
        "label": label,
        "hint": f"{label}: density {share(a)}, {significant(b)}",
        "label_x": at - 10 if right_half else at + 10,
        "label_y": up + 18 if up < TOP + 20 else up - 9 if right_half else up + 16,
        "anchor": "end" if right_half else "start",
    }
