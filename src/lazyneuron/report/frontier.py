"""The plot and the table of a sweep: density against quality."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lazyneuron.core.record import Record
from lazyneuron.report.reading import read
from lazyneuron.report.style import LIGHT, drawing, write_png


def frontier_rows(record: Record) -> list[dict[str, Any]]:
    """A sweep's rows for a table, from the sparsest on.

    Args:
        record: of kind ``"sweep"``.

    Raises:
        DataError: the record is of another kind, or lacks a figure.
    """
    with read(record, "sweep") as data:
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
        DataError: the record is of another kind or lacks a figure, or the file cannot be written.
    """
    with read(record, "sweep") as data, drawing(7.0, 4.6) as figure:
        axes = figure.add_subplot(xlabel="density: share of hidden activations that are not zero")
        axes.set_ylabel(data["quality"])
        for row in data["rows"]:
            color = LIGHT["fire"] if row["pareto"] else LIGHT["base"]
            x, y = row["density"], row["quality"]
            wide = [[x - row["density_low"]], [row["density_high"] - x]]
            high = [[y - row["quality_low"]], [row["quality_high"] - y]]
            axes.errorbar(x, y, xerr=wide, yerr=high, fmt="o", color=color, ms=5, elinewidth=0.8, alpha=0.9)
        front = sorted((row for row in data["rows"] if row["pareto"]), key=lambda row: row["density"])
        places = [(row["density"], row["quality"]) for row in front]
        axes.plot([x for x, _ in places], [y for _, y in places], color=LIGHT["fire"], linewidth=1.2)
        for number, (row, at) in enumerate(zip(front, places, strict=True)):
            below = (6, -11 * (1 + number % 3))  # so that long names do not meet
            axes.annotate(row["name"], at, below, textcoords="offset points", fontsize=7.5, color=LIGHT["fire"])
        write_png(figure, path)
