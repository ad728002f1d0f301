"""The pages' line and scatter charts, as SVG that takes the page's colours."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from lazyneuron.report.numbers import share, significant
from lazyneuron.report.style import LIGHT, draw_svg, drawing, name_artist

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_SIZE = {"width": 5.0, "height": 3.4, "font": 12.0}  # 360 points wide, so that it can be read on a phone
_REACH = 3.0  # times the distance from the best point to the median one
_LEAST_SPAN = 0.05


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
    shown = {k: p for k, p in enumerate(points, start=1) if p[1] >= lowest or k == len(points)}
    with drawing(**_SIZE) as figure:
        axes = figure.add_subplot(xlabel=x_title)
        for number, (x, y, what) in shown.items():
            color = LIGHT["fire"] if number == len(points) else LIGHT["base"]
            (dot,) = axes.plot(x, y, "o", color=color, markersize=10, markeredgecolor=LIGHT["card"])
            name_artist(dot, "dot", hint=f"{what}: density {share(x)}, {significant(y)}")
            label = axes.annotate(str(number), (x, y), (8, 0), textcoords="offset points", va="center", weight="bold")
            name_artist(label, "dot-label")
        _enclose(axes, [p[:2] for p in shown.values()])
        drawn = draw_svg(figure, title=title)
    return {"title": title, "svg": drawn, "left_off": sorted(set(range(1, len(points) + 1)) - set(shown))}


def _enclose(axes: Axes, points: Sequence[tuple[float, float]]) -> None:
    """Axes with round ends that enclose all points and stay between 0 and 1."""
    from matplotlib.ticker import MaxNLocator

    for axis, values in zip("xy", zip(*points, strict=True), strict=True):
        low, high = min(values), max(values)
        margin = max((high - low) * 0.08, (_LEAST_SPAN - (high - low)) / 2)
        around = MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]).tick_values(low - margin, high + margin)
        ticks = [tick for tick in around if -1e-9 <= tick <= 1 + 1e-9]
        axes.set(**{f"{axis}ticks": ticks, f"{axis}lim": (ticks[0], ticks[-1])})


def lines(series: Sequence[tuple[str, Sequence[tuple[float, float]]]], *, title: str, x_title: str) -> dict[str, Any]:
    """One line a series, from grey to the accent, over a logarithmic horizontal axis; vertical axis from 0 to 1.

    Args:
        series: (label, ((x, y), ...)); x positive.
        title: above the chart.
        x_title: below the horizontal axis.
    """
    from matplotlib.colors import to_hex, to_rgb

    ticks = sorted({x for _, points in series for x, _ in points})
    colors: dict[str, str] = {}
    with drawing(**_SIZE) as figure:
        axes = figure.add_subplot(xlabel=x_title, ylim=(0, 1), yticks=(0, 0.25, 0.5, 0.75, 1))
        axes.set_xscale("log")
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.set_xticks([], minor=True)
        for k, (label, points) in enumerate(series):
            part = k / max(len(series) - 1, 1)
            red, green, blue = (
                a + part * (b - a) for a, b in zip(to_rgb(LIGHT["base"]), to_rgb(LIGHT["fire"]), strict=True)
            )
            color = to_hex((red, green, blue))
            colors[color] = f"color-mix(in oklab, var(--fire) {100 * part:.0f}%, var(--base))"
            (line,) = axes.plot(*zip(*points, strict=True), color=color, linewidth=2)
            name_artist(line, "path", hint=label)
        drawn = draw_svg(figure, title=title, colors=colors)
    return {"title": title, "svg": drawn, "left_off": []}
