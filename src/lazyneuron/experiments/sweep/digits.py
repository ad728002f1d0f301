"""The committed sweep as an experiment: recipes and strengths on the digits."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from lazyneuron.core.record import Record
from lazyneuron.experiments.experiment import Experiment, Request
from lazyneuron.experiments.sweep.execution import sweep
from lazyneuron.experiments.sweep.frontier import sweep_record
from lazyneuron.experiments.sweep.settings import grid
from lazyneuron.report import frontier_figure, frontier_rows, markdown_table, provenance


def _run(request: Request) -> Record:
    common: dict[str, Any] = {"seed": range(request.seeds), "noise": [0.5]}
    if request.quick:
        common["epochs"] = [1]
    points = [
        *grid({"recipe": ["vanilla", "jsrelu", "doubly-biased"], **common}),
        *grid({"recipe": ["target"], "strength": [0.02, 0.05, 0.1, 0.2], **common}),
    ]
    with tempfile.TemporaryDirectory() as folder:
        found = sweep(
            "digits",
            points,
            file=Path(folder) / "points.jsonl",
            advance=lambda done, total: request.advance(done / total, f"{done} of {total} points"),
        )
    return sweep_record(found, quality="accuracy")


def _section(record: Record) -> str:
    data = record.data
    parts = (
        markdown_table(frontier_rows(record)),
        f"Pareto points: {'; '.join(data['frontier'])}. All took {data['seconds'] / 60:.0f} minutes of one core.",
        f"![Density against {data['quality']}](assets/sweep.png)",
        provenance(record),
    )
    return "\n\n".join(parts) + "\n"


EXPERIMENT = Experiment(
    name="sweep",
    title="Density against accuracy over recipes and strengths, on the digits",
    run=_run,
    kind="sweep",
    sections={"docs/train.md": _section},
    figures={"sweep.png": frontier_figure},
)
