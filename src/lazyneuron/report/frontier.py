"""The plot and the table of a sweep: density against quality."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from lazyneuron.core.errors import DataError
from lazyneuron.core.record import Record, write_bytes

_FRONT, _REST = "#d9480f", "#8d867c"


def frontier_rows(record: Record) -> list[dict[str, Any]]:
    """A sweep's rows for a table, from the sparsest on.

    Args:
        record: of kind ``"sweep"``.

    Raises:
        DataError: the record is of another kind.
    """
    data = _data(record)
    return [
        {
            "point": row["name"],
            "density": f"{row['density']:.3f}",
            data["quality"]: f"{row['quality']:.4f}",
            "from": f"{row['quality_low']:.4f}",
            "to": f"{row['quality_high']:.4f}",
            "runs": row["seeds"],
            "Pareto": "yes" if row["pareto"] else "",
        }
        for row in sorted(data["rows"], key=lambda row: row["density"])
    ]


def frontier_figure(record: Record, path: Path) -> None:
    """Draw a sweep as PNG: every point with the range of its seeds, the Pareto points named and joined.

    Args:
        record: of kind ``"sweep"``.
        path: the file to write.

    Raises:
        DataError: the record is of another kind, or the file cannot be written.
    """
    data = _data(record)
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.0, 4.6), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for row in data["rows"]:
        color = _FRONT if row["pareto"] else _REST
        x, y = row["density"], row["quality"]
        wide = [[x - row["density_low"]], [row["density_high"] - x]]
        high = [[y - row["quality_low"]], [row["quality_high"] - y]]
        axes.errorbar(x, y, xerr=wide, yerr=high, fmt="o", color=color, ms=5, elinewidth=0.8, alpha=0.9)
    front = sorted((row for row in data["rows"] if row["pareto"]), key=lambda row: row["density"])
    axes.plot([row["density"] for row in front], [row["quality"] for row in front], color=_FRONT, lw=1.2)
    for number, row in enumerate(front):
        at, below = (row["density"], row["quality"]), -11 * (1 + number % 3)  # so that long names do not meet
        axes.annotate(row["name"], at, xytext=(6, below), textcoords="offset points", fontsize=7.5, color=_FRONT)
    axes.set_xlabel("density: share of hidden activations that are not zero")
    axes.set_ylabel(data["quality"])
    axes.grid(color="#e3dfd7", lw=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", dpi=160, metadata={"Software": "lazyneuron"})
    write_bytes(path, drawn.getvalue())


def _data(record: Record) -> dict[str, Any]:
    if record.kind != "sweep":
        raise DataError(f"A frontier is drawn from a sweep's record, got one of kind {record.kind!r}.")
    return dict(record.data)
