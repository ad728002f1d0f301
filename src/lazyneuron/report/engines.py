"""Time against agreement, one panel an input size: all engines, and the front of those that no other beats."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lazyneuron.core.record import Record
from lazyneuron.report.engine_rows import front, lost
from lazyneuron.report.style import LIGHT, draw_svg, drawing, write_png
from lazyneuron.report.ticks import plain_ticks

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Row = Mapping[str, Any]
_WIDTH = 7.0  # inches: its texts are those of the page where the page is as wide as a text
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
    with drawing(_WIDTH, 2.9 * (len(cases) // 2 + 1)) as figure:
        draw_panels(figure, rows, cases)
        write_png(figure, path)


def draw_panels(figure: Figure, rows: Sequence[Row], cases: Sequence[str]) -> None:
    """A panel a case, two beside each other, each engine by its number; the place after the last one names them."""
    shown = [row for row in rows if row["times"]]
    places = iter(figure.subplots(len(cases) // 2 + 1, 2, squeeze=False).flat)
    for case in cases:
        _panel(next(places), shown, case)
    _name(next(places), shown)
    for empty in places:
        empty.axis("off")


def _name(axes: Axes, rows: Sequence[Row]) -> None:
    axes.axis("off")
    for number, row in enumerate(rows, start=1):
        place, color = (0.0, 1.0 - number / (len(rows) + 1)), LIGHT["fire"] if row["ours"] else LIGHT["soft"]
        text = f"{number}  {row['engine']}"
        axes.annotate(text, place, xycoords="axes fraction", va="center", fontsize=9, color=color)


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
    axes.set_ylabel("1 - mean cosine")
    axes.invert_yaxis()
    on = front(rows, case)
    stairs = sorted((ms, loss) for ms, loss, number, _ in points if rows[number - 1]["engine"] in on)
    axes.step([p[0] for p in stairs], [p[1] for p in stairs], where="post", color=LIGHT["other"], linewidth=1.2)
    for k, (ms, loss, number, ours) in enumerate(sorted(points)):
        color = LIGHT["fire"] if ours else LIGHT["base"]
        axes.plot(ms, loss, "o", color=color, markersize=7, markeredgecolor=LIGHT["card"])
        aside = (0, 6) if k % 2 == 0 else (0, -14)  # neighbours along the axis: one above, one below
        label = axes.annotate(str(number), (ms, loss), aside, textcoords="offset points", ha="center", zorder=4)
        label.set(color=color, weight="bold")
    plain_ticks(axes.xaxis, [p[0] for p in points])
