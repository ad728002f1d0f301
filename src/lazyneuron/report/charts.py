"""Geometry of the pages' line and scatter charts, for the template that draws them as SVG."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from lazyneuron.report.axes import Axis, axis
from lazyneuron.report.numbers import share, significant

WIDTH, HEIGHT = 420, 280
LEFT, RIGHT, TOP, BOTTOM = 52, 396, 14, 240
_UNIT = (0.0, 1.0)
_REACH = 3.0  # times the distance from the best point to the median one


def scatter(points: Sequence[tuple[float, float, str]], *, title: str, x_title: str) -> dict[str, Any]:
    """Points in the unit square, numbered from 1 in the order given; the last one stands out.

    A point far below the others would press them into a line, so it is left off; ``left_off`` has its number.

    Args:
        points: (x, y, what it is).
        title: above the chart.
        x_title: below the horizontal axis.
    """
    heights = [p[1] for p in points]
    lowest = max(heights) - _REACH * (max(heights) - statistics.median(heights))
    shown = [(k, p) for k, p in enumerate(points, start=1) if p[1] >= lowest or k == len(points)]
    x = axis([p[0] for _, p in shown], start=LEFT, end=RIGHT, span=0.05, within=_UNIT)
    y = axis([p[1] for _, p in shown], start=BOTTOM, end=TOP, span=0.05, within=_UNIT)
    dots = [_dot(x, y, p, number=k, last=k == len(points)) for k, p in shown]
    left_off = sorted(set(range(1, len(points) + 1)) - {k for k, _ in shown})
    return _frame(x, y, title=title, x_title=x_title) | {"lines": [], "dots": dots, "left_off": left_off}


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
    return _frame(x, y, title=title, x_title=x_title) | {"lines": drawn, "dots": [], "left_off": []}


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


def _dot(x: Axis, y: Axis, point: tuple[float, float, str], *, number: int, last: bool) -> dict[str, Any]:
    at, up = round(x(point[0]), 1), round(y(point[1]), 1)
    beside = at + 10 if at < RIGHT - 20 else at - 10
    return {
        "x": at,
        "y": up,
        "kind": "last" if last else "",
        "label": str(number),
        "hint": f"{point[2]}: density {share(point[0])}, {significant(point[1])}",
        "label_x": beside,
        "label_y": up + 4.5,
        "anchor": "start" if beside > at else "end",
    }
