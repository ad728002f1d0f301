"""Static figures for the README and the docs, from a demo record."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from lazyneuron.core.record import Record
from lazyneuron.report import demo_view
from lazyneuron.report.numbers import ratio, significant
from lazyneuron.report.style import LIGHT, drawing, write_png

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# keeps a text readable where a line passes behind it
_PLATE = {"facecolor": "white", "edgecolor": "none", "alpha": 0.85, "pad": 1.0}


def density_figure(record: Record, path: Path) -> None:
    """Draw the density of each block before and after, as PNG.

    Args:
        record: of kind ``"demo"``.
        path: the file to write.

    Raises:
        DataError: the record is of another kind or lacks a figure, or the file cannot be written.
    """
    rows = [r for r in demo_view.view(record)["density"]["rows"] if not r["total"]]
    with drawing(8.0, 1.5 + 0.42 * len(rows)) as figure:
        axes = figure.add_subplot(xlim=(0, 1.005), xlabel="density: share of neurons that fire on a token")
        at = range(len(rows))
        before, after = ([row[key] for row in rows] for key in ("before", "after"))
        axes.barh(at, before, height=0.62, color=LIGHT["track"], edgecolor=LIGHT["other"], label="original")
        axes.barh(at, after, height=0.62, color=LIGHT["fire"], label="after")
        would = [(row["would"], k) for k, row in enumerate(rows) if row["would"] is not None]
        (marks,) = axes.plot([v for v, _ in would], [k for _, k in would], "|", label="original under ReLU")
        marks.set(color=LIGHT["mark"], markersize=15, markeredgewidth=2)
        for k, row in enumerate(rows):
            end = max(row["after"], row["would"] or 0.0) + 0.012
            axes.text(end, k, f"{row['after']:.3f}", va="center", color=LIGHT["fire"], weight="bold", fontsize=10)
        axes.set_yticks(at, [row["name"] for row in rows])
        _finish_bars(figure, axes, title="How many neurons fire, block by block")
        write_png(figure, path)


def latency_figure(record: Record, path: Path) -> None:
    """Draw the median latency of every variant, one panel a case below the other, with the ceiling, as PNG.

    Args:
        record: of kind ``"demo"``.
        path: the file to write.

    Raises:
        DataError: the record is of another kind or lacks a figure, or the file cannot be written.
    """
    cases = demo_view.view(record)["cases"]
    variants = max((len(case["rows"]) for case in cases), default=1)
    with drawing(7.0, len(cases) * (1.1 + 0.26 * variants)) as figure:
        panels = figure.subplots(len(cases), 1, squeeze=False)
        for axes, case in zip(panels.flat, cases, strict=True):
            _draw_latency(axes, case)
            title = f"{case['title']}: {ratio(case['speedup'])} of at most {ratio(case['ceiling'])}"
            _finish_bars(figure, axes, title=title)
        write_png(figure, path)


def _draw_latency(axes: Axes, case: dict[str, Any]) -> None:
    rows = case["rows"]
    longest = max((max(r["median_ms"], r["high_ms"] or 0) for r in rows if r["median_ms"] is not None), default=1.0)
    colors = {"accelerated": LIGHT["fire"], "original": LIGHT["base"]}
    for k, row in enumerate(rows):
        median = row["median_ms"]
        if median is None:
            axes.text(0, k, " did not run", va="center", color=LIGHT["soft"], fontsize=9, style="italic")
            continue
        axes.barh(k, median, height=0.62, color=colors.get(row["kind"], LIGHT["other"]))
        end = median
        if None not in (row["low_ms"], row["high_ms"]):
            spread = [row["low_ms"], row["high_ms"]]
            axes.plot(spread, [k, k], color=LIGHT["mark"], linewidth=1.4, solid_capstyle="butt")
            end = max(median, row["high_ms"])
        axes.text(end + 0.02 * longest, k, f"{significant(median)} ms", va="center", fontsize=9, bbox=_PLATE)
    if case["limit"] is not None:
        dashes = (0, (4, 3))
        axes.axvline(case["limit"] * longest, color=LIGHT["mark"], linewidth=1.2, linestyle=dashes, label="ceiling")
    axes.set_yticks(range(len(rows)), [row["label"] for row in rows])
    axes.set(xlim=(0, 1.28 * longest), xlabel="median time of one forward, ms")


def _finish_bars(figure: Figure, axes: Axes, *, title: str) -> None:
    """From the top down, without a frame, with one legend for all panels."""
    if not axes.yaxis_inverted():
        axes.invert_yaxis()
    axes.set_title(title)
    axes.grid(visible=False, axis="y")
    axes.spines[:].set_visible(False)
    handles, labels = axes.get_legend_handles_labels()
    if handles and not figure.legends:
        figure.legend(handles, labels, loc="outside lower right", ncols=len(handles))
