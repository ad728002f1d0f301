"""The figure of a reproduced experiment: one line for each variant, with the range of its seeds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lazyneuron.core.record import Record
from lazyneuron.report.reading import read
from lazyneuron.report.style import SERIES, drawing, write_png
from lazyneuron.report.ticks import plain_ticks

_FEW = 6  # names find a place between the lines
_SHORT = 40  # characters of a name that has another beside it
_ROOM = 0.19  # inches a row of names


def curves_figure(record: Record, path: Path) -> None:
    """Draw a record of kind ``"reproduce"`` as PNG.

    Args:
        record: its ``curves`` and ``axes`` are drawn.
        path: the file to write.

    Raises:
        DataError: the record is of another kind or lacks a figure, or the file cannot be written.
    """
    with read(record, "reproduce") as data, drawing(7.0, 4.2) as figure:
        x_title, y_title = data["axes"]
        axes = figure.add_subplot(xlabel=x_title, ylabel=y_title)
        for number, curve in enumerate(data["curves"]):
            again = number // len(SERIES)  # how often the colours were used up
            style: dict[str, Any] = {"marker": "os^"[again % 3], "linestyle": ("-", "--", ":")[again % 3]}
            (line,) = axes.plot(curve["x"], curve["y"], markersize=3.5, label=curve["label"], **style)
            if "low" in curve:
                color = line.get_color()
                axes.fill_between(curve["x"], curve["low"], curve["high"], color=color, alpha=0.15, linewidth=0)
        logarithmic = data.get("logarithmic", "")
        for name, axis in (("x", axes.xaxis), ("y", axes.yaxis)):
            if name in logarithmic:
                values = [value for curve in data["curves"] for value in curve[name] if value > 0]
                axes.set(**{f"{name}scale": "log"})
                plain_ticks(axis, values or [1.0])
        if "y" not in logarithmic:
            axes.set_ylim(bottom=0)
        if below := _columns_below(data["curves"]):
            figure.set_figheight(4.2 + _ROOM * math.ceil(len(data["curves"]) / below))
            figure.legend(loc="outside lower left", ncols=below)
        else:
            axes.legend()
        write_png(figure, path)


def _columns_below(curves: Sequence[Mapping[str, Any]]) -> int:
    """In how many columns names stand below the axes, where they would hide lines; 0 if there are few."""
    if len(curves) <= _FEW:
        return 0
    return 2 if max(len(curve["label"]) for curve in curves) <= _SHORT else 1
