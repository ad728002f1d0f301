"""Certified execution beside its alternatives: the default grid of ``lazyneuron bench``."""

from __future__ import annotations

import torch

from lazyneuron.core.record import Record
from lazyneuron.experiments.bench.blocks.grid import default_grid, quick_grid
from lazyneuron.experiments.bench.blocks.measuring import measure_cases
from lazyneuron.experiments.bench.blocks.page import grid_page
from lazyneuron.experiments.bench.blocks.reached import reached
from lazyneuron.experiments.experiment import Experiment, Request


def run(request: Request) -> Record:
    """Measure the grid; an interrupted run keeps the rows that it measured."""
    grid = (quick_grid if request.quick else default_grid)(torch.get_num_threads())
    return measure_cases(grid, keep=request.keep, watcher=lambda done, total, row: request.advance(done / total, ""))


EXPERIMENT = Experiment(
    name="accelerate",
    title="Certified execution beside its alternatives, on synthetic blocks",
    run=run,
    kind="benchmark",
    sections={"docs/benchmarks.md#reached": reached, "docs/benchmarks.md": grid_page},
)
