"""What the documentation's first page shows of the record: one figure, and what it says."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from lazyneuron.core.errors import DataError
from lazyneuron.core.record import Record
from lazyneuron.experiments.bench.generation import cases as names
from lazyneuron.experiments.bench.generation.page import rows_of
from lazyneuron.report import provenance
from lazyneuron.report.style import LIGHT, drawing, write_png

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Row = dict[str, Any]
FIGURE = "generate-engines.png"


def front(record: Record) -> str:
    """A figure and its caption; nothing when the record has no other engine."""
    cases = _cases(record)
    if not cases:
        return ""
    caption = f"{_sentence(cases)} [Every row, and the goals that were missed](generate.md#measured)."
    title = "### A language model, beside another engine"
    return f"{title}\n\n![Tokens a second of each engine](assets/{FIGURE})\n\n{caption}\n\n{provenance(record)}\n\n"


def reached(record: Record) -> str:
    """One item of the benchmarks' first list."""
    cases = _cases(record)
    return f"- **A language model.** {_sentence(cases)} [Generating text](generate.md#measured).\n" if cases else ""


def _sentence(cases: dict[str, list[Row]]) -> str:
    first = next(iter(cases.values()))[0]
    sparse = ", ".join(f"{_over(rows, names.OURS):.2f} times {_other(rows)}" for rows in cases.values())
    dense = ", ".join(f"{_over(rows, names.EVERY):.2f} times {_other(rows)}" for rows in cases.values())
    return (
        f"Decoding one sequence in the sizes of {first['shape']}, random weights, {first['density']:g} of the neurons "
        f"firing. Ours, in tokens a second: {sparse}; with every neuron evaluated: "
        f"{dense}."
    )


def engines_figure(record: Record, path: Path) -> None:
    """Draw tokens a second of each engine, one panel a format below the other, with the ceiling of the bytes, as PNG.

    Args:
        record: of the benchmark ``generate``.
        path: the file to write.

    Raises:
        DataError: no case of the record has another engine, or the file cannot be written.
    """
    cases = _cases(record)
    if not cases:
        raise DataError("The record has no case with another engine to draw; measure with --peers-python.")
    with drawing(7.0, 0.4 + sum(0.9 + 0.28 * len(rows) for rows in cases.values())) as figure:
        panels = figure.subplots(len(cases), 1, squeeze=False)[:, 0]
        for axes, (name, rows) in zip(panels, cases.items(), strict=True):
            _draw(axes, rows)
            axes.set_title(name)
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower right")
        write_png(figure, path)


def _draw(axes: Axes, rows: list[Row]) -> None:
    colors = [LIGHT["fire"] if row["engine"] == names.OURS else LIGHT["base"] for row in rows]
    axes.barh(range(len(rows)), [row["tokens_per_s"] for row in rows], height=0.62, color=colors)
    for k, row in enumerate(rows):
        label, x = f"{row['tokens_per_s']:.1f} ", row["tokens_per_s"]
        axes.text(x, k, label, fontsize=9, ha="right", va="center", color="white", weight="bold")
    marks = [(ceiling, k) for k, row in enumerate(rows) if (ceiling := row.get("ceiling_tokens_per_s")) is not None]
    label = "ceiling: only the bytes that a token needs"
    axes.vlines([x for x, _ in marks], [k - 0.31 for _, k in marks], [k + 0.31 for _, k in marks], label=label)
    axes.collections[-1].set(color=LIGHT["mark"], linewidth=1.6)
    axes.set_yticks(range(len(rows)), [row["engine"] for row in rows])
    axes.set_xlabel("tokens a second")
    axes.set_xlim(left=0)
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    axes.spines[:].set_visible(False)


def _cases(record: Record) -> dict[str, list[Row]]:
    """Format -> ours, ours with every neuron, and one other engine, at the lowest density of the first shape."""
    rows = [row for row in rows_of(record) if "ms" in row and row["part"] == names.ONE]
    rows = [row for row in rows if row["shape"] == rows[0]["shape"] and row["engine"] != names.COMPILED]
    least = min((row["density"] for row in rows), default=0.0)
    found: dict[str, list[Row]] = {}
    for row in rows:
        if row["density"] == least and row["weights"] == row["rest"]:
            found.setdefault(row["weights"], []).append(row)
    return {name: some for name, some in found.items() if len(some) > 2}


def _over(rows: list[Row], engine: str) -> float:
    """One of ours over the other engine, the median over rounds."""
    ours = next(row for row in rows if row["engine"] == engine)
    return float(ours["over"][_other(rows)]["median"])


def _other(rows: list[Row]) -> str:
    return str(next(row["engine"] for row in rows if row["engine"] not in (names.OURS, names.EVERY)))
