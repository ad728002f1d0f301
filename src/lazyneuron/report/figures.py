"""Static figures for the README and the docs, from a demo record; drawn without a display and without global state."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lazyneuron.core.record import Record, write_bytes
from lazyneuron.report import demo_view
from lazyneuron.report.numbers import ratio, significant

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FIRE, BASE, OTHER, SOFT, LINE, TRACK = "#d9480f", "#8d867c", "#b8b1a6", "#6a645c", "#e3dfd7", "#f1eee8"


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
    figure = _figure(8.0, 1.5 + 0.42 * len(rows))
    axes = figure.add_subplot()
    at = range(len(rows))
    axes.barh(
        at, [r["before"] for r in rows], height=0.62, color=TRACK, edgecolor=OTHER, linewidth=0.8, label="original"
    )
    axes.barh(at, [r["after"] for r in rows], height=0.62, color=FIRE, label="after")
    would = [(k, r["would"]) for k, r in enumerate(rows) if r["would"] is not None]
    axes.plot(
        [v for _, v in would], [k for k, _ in would], "|", color="#33302c", ms=15, mew=2, label="original under ReLU"
    )
    for k, row in enumerate(rows):
        axes.text(
            max(row["after"], row["would"] or 0.0) + 0.012,
            k,
            f"{row['after']:.3f}",
            va="center",
            color=FIRE,
            fontweight="bold",
            fontsize=10,
        )
    axes.set_yticks(list(at), [r["name"] for r in rows])
    axes.set_xlim(0, 1.005)
    axes.set_xlabel("density: share of neurons that fire on a token", color=SOFT)
    _finish(figure, axes, title="How many neurons fire, block by block")
    _save(figure, path)


def latency_figure(record: Record, path: Path) -> None:
    """Draw the median latency of every variant, one panel a case, with the ceiling, as PNG.

    Args:
        record: of kind ``"demo"``.
        path: the file to write.

    Raises:
        DataError: the record is of another kind or lacks a figure, or the file cannot be written.
    """
    cases = demo_view.view(record)["cases"]
    figure = _figure(4.1 * len(cases) + 1.2, 3.3)
    panels = figure.subplots(1, len(cases), squeeze=False, sharey=True)[0]
    for axes, case in zip(panels, cases, strict=True):
        _latency_panel(axes, case)
        _finish(figure, axes, title=f"{case['title']}: {ratio(case['speedup'])} of at most {ratio(case['ceiling'])}")
    _save(figure, path)


def _latency_panel(axes: Axes, case: dict[str, Any]) -> None:
    rows = case["rows"]
    longest = max((max(r["median_ms"], r["high_ms"] or 0) for r in rows if r["median_ms"] is not None), default=1.0)
    for k, row in enumerate(rows):
        median = row["median_ms"]
        if median is None:
            axes.text(0, k, " did not run", va="center", color=SOFT, fontsize=9, style="italic")
            continue
        color = FIRE if row["kind"] == "accelerated" else BASE if row["kind"] == "original" else OTHER
        axes.barh(k, median, height=0.62, color=color)
        end = median
        if None not in (row["low_ms"], row["high_ms"]):
            axes.plot([row["low_ms"], row["high_ms"]], [k, k], color="#33302c", lw=1.4, solid_capstyle="butt")
            end = max(median, row["high_ms"])
        axes.text(
            end + 0.02 * longest, k, f"{significant(median)} ms", va="center", fontsize=9, color="#1d1b19", bbox=_PLATE
        )
    if case["limit"] is not None:
        axes.axvline(case["limit"] * longest, color="#33302c", lw=1.2, ls=(0, (4, 3)), label="ceiling")
    axes.set_yticks(range(len(rows)), [r["label"] for r in rows])
    axes.set_xlim(0, 1.28 * longest)
    axes.set_xlabel("median time of one forward, ms", color=SOFT)


def _figure(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    layout = ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.12)
    return Figure(figsize=(width, height), layout=layout, facecolor="white")


def _finish(figure: Figure, axes: Axes, *, title: str) -> None:
    if not axes.yaxis_inverted():
        axes.invert_yaxis()
    axes.set_title(title, loc="left", fontsize=11.5, fontweight="bold", color="#1d1b19", pad=10)
    axes.tick_params(length=0, colors=SOFT, labelsize=9.5)
    axes.grid(axis="x", color=LINE, lw=0.8)
    axes.set_axisbelow(True)
    for side in axes.spines.values():
        side.set_visible(False)
    handles, labels = axes.get_legend_handles_labels()
    if handles and not figure.legends:
        figure.legend(handles, labels, loc="outside lower right", ncols=len(handles), frameon=False, fontsize=9)


def _save(figure: Figure, path: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    FigureCanvasAgg(figure)
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", dpi=180, metadata={"Software": "lazyneuron"})
    write_bytes(path, drawn.getvalue())
