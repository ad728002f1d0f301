"""Measure a list of cases; what is measured is kept in a file after every few rows."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from lazyneuron.core.environment import environment
from lazyneuron.core.errors import ConfigError, ImplUnavailable
from lazyneuron.core.record import Record, write_text
from lazyneuron.experiments.bench.case import Case
from lazyneuron.experiments.bench.held import Held, hold
from lazyneuron.experiments.bench.row import measure_case, refused
from lazyneuron.experiments.bench.synthetic import SEED

KIND = "benchmark/accelerate"
BUDGET_S = 0.25  # for the timing of one row
_WRITE_EVERY_S = 3.0

Watcher = Callable[[int, int, dict[str, Any]], None]


@torch.no_grad()
def run(
    cases: Sequence[Case],
    *,
    path: Path | None = None,
    budget_s: float = BUDGET_S,
    watcher: Watcher = lambda done, total, row: None,
) -> Record:
    """Measure cases one after the other.

    Args:
        cases: in an order that keeps equal weights together.
        path: file for the record; an interrupted run keeps there what it measured.
        budget_s: for the timing of one row.
        watcher: called after every row with the rows done, the rows in all, and the row.

    Returns:
        The record.

    Raises:
        ConfigError: there is no case.
        DataError: the file cannot be written.
        CheckpointError: the cached cost model is corrupt.
    """
    if not cases:
        raise ConfigError("There is nothing to measure; name at least one case.")
    rows: list[dict[str, Any]] = []
    threads, written = torch.get_num_threads(), time.perf_counter()
    try:
        held: Held | None = None
        for case in cases:
            torch.set_num_threads(case.threads)
            try:
                if held is None or not held.fits(case):
                    held = None  # before the next one is made: two large blocks may not fit
                    held = hold(case)
                rows.append(measure_case(case, held, budget_s=budget_s))
            except (ImplUnavailable, MemoryError) as error:
                rows.append(refused(case, error))
            except RuntimeError as error:
                if "allocate memory" not in str(error):
                    raise
                rows.append(refused(case, error))
            watcher(len(rows), len(cases), rows[-1])
            if path is not None and time.perf_counter() - written > _WRITE_EVERY_S:
                write_text(path, _record(rows, cases).to_json())
                written = time.perf_counter()
    finally:
        torch.set_num_threads(threads)
        if path is not None and rows:
            write_text(path, _record(rows, cases).to_json())
    return _record(rows, cases)


def _record(rows: list[dict[str, Any]], cases: Sequence[Case]) -> Record:
    title = f"Certified execution on synthetic Gaussian weights and inputs ({len(rows)} of {len(cases)} rows)"
    facts = dataclasses.replace(environment(), threads=max(case.threads for case in cases))
    return Record(kind=KIND, data={"title": title, "rows": rows}, seed=SEED, environment=facts)
