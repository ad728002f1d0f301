"""The figure of a reproduced experiment: one line for each variant, with the range of its seeds."""

from __future__ import annotations

import io
from pathlib import Path

from lazyneuron.core.errors import DataError
from lazyneuron.core.record import Record, write_bytes

_COLORS = ("#8d867c", "#2f6f8f", "#5b8c5a", "#b08900", "#d9480f", "#7a4f9a", "#1c1c1c", "#c05780", "#3aa6a0")


def curves_figure(record: Record, path: Path) -> None:
    """Draw a record of kind ``"reproduce"`` as PNG.

    Args:
        record: its ``curves`` and ``axes`` are drawn.
        path: the file to write.

    Raises:
        DataError: the record is of another kind, or the file cannot be written.
    """
    if record.kind != "reproduce":
        raise DataError(f"A figure of curves is drawn from a reproduce record, got one of kind {record.kind!r}.")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.0, 4.2), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for number, curve in enumerate(record.data["curves"]):
        color = _COLORS[number % len(_COLORS)]
        axes.plot(curve["x"], curve["y"], color=color, lw=1.8, marker="o", ms=3.5, label=curve["label"])
        if "low" in curve:
            axes.fill_between(curve["x"], curve["low"], curve["high"], color=color, alpha=0.15, lw=0)
    x_title, y_title = record.data["axes"]
    axes.set_xlabel(x_title)
    axes.set_ylabel(y_title)
    logarithmic = record.data.get("logarithmic", "")
    if "x" in logarithmic:
        axes.set_xscale("log")
    if "y" in logarithmic:
        axes.set_yscale("log")
    else:
        axes.set_ylim(bottom=0)
    axes.grid(color="#e3dfd7", lw=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.legend(frameon=False, fontsize=9)
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", dpi=160, metadata={"Software": "lazyneuron"})
    write_bytes(path, drawn.getvalue())
