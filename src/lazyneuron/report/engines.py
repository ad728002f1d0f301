"""Time against agreement, one panel an input size: all engines, and the front of those that no other beats."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lazyneuron.core.record import Record
from lazyneuron.report.engine_rows import front, lost
from lazyneuron.report.style import LIGHT, draw_svg, drawing, write_png

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Row = Mapping[str, Any]
_LEAST_LOSS = 5e-5  # of agreement; what is nearer to the original is drawn here


def engines_figure(record: Record, path: Path) -> None:
    """Draw a record with rows of engines, of the encoder benchmark or of the demo, as PNG.

    Args:
        record: its data have ``rows`` or ``engines``, as ``experiments.engines`` makes them.
        path: the file to write.

    Raises:
        DataError: the file cannot be written.
    """
    rows = record.data.get("engines") or record.data.get("rows") or []
    cases = list(dict.fromkeys(case for row in rows for case in row["times"]))
    with drawing(4.4 * max(len(cases), 1), 4.0) as figure:
        draw_panels(figure, rows, cases)
        write_png(figure, path)


def draw_panels(figure: Figure, rows: Sequence[Row], cases: Sequence[str]) -> None:
    """A panel a case, each engine by its number; the legend below names them."""
    shown = [row for row in rows if row["times"]]
    panels = figure.subplots(1, len(cases), squeeze=False)[0]
    for axes, case in zip(panels, cases, strict=True):
        _panel(axes, shown, case)
    names = "     ".join(f"{number} {row['engine']}" for number, row in enumerate(shown, start=1))
    figure.supxlabel(_wrapped(names, 62 * len(cases) // 2), fontsize=9, color=LIGHT["soft"])


def engine_charts(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """A chart for the page for each input size, as :func:`lazyneuron.report.charts.scatter` gives one.

    Args:
        rows: of the demo's record; those without times are left out, and the numbers are the places of the others.
    """
    shown = [row for row in rows if row["times"]]
    charts = []
    for case in dict.fromkeys(case for row in shown for case in row["times"]):
        title = f"{case} tokens: time against what is lost"
        with drawing(5.0, 3.8, font=12.0) as figure:
            axes = figure.add_subplot()
            _panel(axes, shown, case)
            axes.set_title("")
            charts.append({"title": title, "svg": draw_svg(figure, title=title), "left_off": []})
    return charts


def _panel(axes: Axes, rows: Sequence[Row], case: str) -> None:
    points = []
    for number, row in enumerate(rows, start=1):
        if case in row["times"]:
            loss = max(lost(row), _LEAST_LOSS)
            points.append((row["times"][case]["median_ms"], loss, number, row["ours"]))
    axes.set(title=f"{case} tokens", xlabel="ms, median", yscale="log", xscale="log")
    axes.set_ylabel("1 - mean cosine with the original")
    axes.invert_yaxis()
    on = front(rows, case)
    stairs = sorted((ms, loss) for ms, loss, number, _ in points if rows[number - 1]["engine"] in on)
    axes.step([p[0] for p in stairs], [p[1] for p in stairs], where="post", color=LIGHT["other"], linewidth=1.2)
    for ms, loss, number, ours in points:
        color = LIGHT["fire"] if ours else LIGHT["base"]
        axes.plot(ms, loss, "o", color=color, markersize=9, markeredgecolor=LIGHT["card"])
        axes.annotate(str(number), (ms, loss), (7, 3), textcoords="offset points", weight="bold", color=color)
    _plain_ticks(axes, [p[0] for p in points])


def _plain_ticks(axes: Axes, values: Sequence[float]) -> None:
    from matplotlib.ticker import NullLocator

    low, high = min(values), max(values)
    ticks = [t * 10**e for e in range(-1, 4) for t in (1, 2, 5) if low * 0.7 <= t * 10**e <= high * 1.4]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.xaxis.set_minor_locator(NullLocator())


def _wrapped(text: str, width: int) -> str:
    lines = [""]
    for part in text.split("     "):
        if lines[-1] and len(lines[-1]) + len(part) > width:
            lines.append("")
        lines[-1] += ("     " if lines[-1] else "") + part
    return "\n".join(lines)
