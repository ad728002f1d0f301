"""Measure a list of cases, and hand over what is measured every few rows."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch

from lazyneuron.core.environment import environment
from lazyneuron.core.errors import ConfigError, ImplUnavailable
from lazyneuron.core.record import Record
from lazyneuron.experiments.bench.blocks.case import Case
from lazyneuron.experiments.bench.blocks.prepared import Prepared, prepare
from lazyneuron.experiments.bench.blocks.row import measure_case, refused
from lazyneuron.experiments.bench.blocks.synthetic import SEED

KIND = "benchmark/accelerate"
BUDGET_S = 0.25  # for the timing of one row
_KEEP_EVERY_S = 3.0

Watcher = Callable[[int, int, dict[str, Any]], None]


@torch.no_grad()
def measure_cases(
    cases: Sequence[Case],
    *,
    budget_s: float = BUDGET_S,
    keep: Callable[[Record], None] = lambda record: None,
    watcher: Watcher = lambda done, total, row: None,
) -> Record:
    """Measure cases one after the other.

    Args:
        cases: in an order that keeps equal weights together.
        budget_s: for the timing of one row.
        keep: given the record so far every few seconds and at the end, also of an interrupted run.
        watcher: called after every row with the rows done, the rows in all, and the row.

    Returns:
        The record.

    Raises:
        ConfigError: there is no case.
        CheckpointError: the cached cost model is corrupt.
    """
    if not cases:
        raise ConfigError("There is nothing to measure; name at least one case.")
    rows: list[dict[str, Any]] = []
    threads, kept = torch.get_num_threads(), time.perf_counter()
    try:
        prepared: Prepared | None = None
        for case in cases:
            torch.set_num_threads(case.threads)
            try:
                if prepared is None or not prepared.fits(case):
                    prepared = None  # before the next one is made: two large blocks may not fit
                    prepared = prepare(case)
                rows.append(measure_case(case, prepared, budget_s=budget_s))
            except (ImplUnavailable, MemoryError) as error:
                rows.append(refused(case, error))
            except RuntimeError as error:
                if "allocate memory" not in str(error):
                    raise
                rows.append(refused(case, error))
            watcher(len(rows), len(cases), rows[-1])
            if time.perf_counter() - kept > _KEEP_EVERY_S:
                keep(_record(rows, cases))
                kept = time.perf_counter()
    finally:
        torch.set_num_threads(threads)
        if rows:
            keep(_record(rows, cases))
    return _record(rows, cases)


def _record(rows: list[dict[str, Any]], cases: Sequence[Case]) -> Record:
    title = f"Certified execution on synthetic Gaussian weights and inputs ({len(rows)} of {len(cases)} rows)"
    facts = dataclasses.replace(environment(), threads=max(case.threads for case in cases))
    return Record(kind=KIND, data={"title": title, "rows": rows}, seed=SEED, environment=facts)
