"""Baykal et al., table 1: dense and sparse models at equal FLOPs."""

from __future__ import annotations

import dataclasses
import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lazyneuron.core.record import write_text
from lazyneuron.experiments.experiment import Finding, Request, band, published
from lazyneuron.experiments.jobs import run_cases
from lazyneuron.experiments.reproduce.baykal.samples import (
    CLOSED_FORM,
    FEATURES,
    SOURCE,
    draw,
    masked_network,
    mean_squared_error,
)

PAPER = {
    18432: {"dense": 0.01015, "50 %": 0.01014, "25 %": 0.009655},
    36864: {"dense": 0.01009, "50 %": 0.007438, "25 %": 0.005054},
    73728: {"dense": 0.01046, "50 %": 0.006115, "25 %": 0.001799},
}
SHARES = {"dense": 1, "50 %": 2, "25 %": 4}
_DIFFERS = (
    f"{CLOSED_FORM} Above 8192 units, which is 25 % active at 73728 FLOPs, that would take a matrix of 2.1 GB and 21 "
    "TFLOP a model; those are fitted by 200 steps of conjugate gradients (2 GB). "
    "The hypercube target; FLOPs are 2 active (inputs + 1). With units scored by their own "
    "pre-activation, half of them is nearly what ReLU keeps anyway, so 50 % gains little; the second group scores them "
    "by random weights of their own."
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fit:
    """One model of the table.

    Attributes:
        own: whether units are scored by their own pre-activation.
        share: how many units there are for each active one.
        active: units that answer.
        rows: to learn from.
        seed: of target, rows and model.
        folder: keeps what was found, so that an interrupted table goes on; None keeps nothing.
    """

    own: bool
    share: int
    active: int
    rows: int
    seed: int
    folder: Path | None = None

    @property
    def file(self) -> Path | None:
        """Where what was found is kept."""
        scores = "own" if self.own else "separate"
        name = f"{self.active}x{self.share}-{scores}-{self.rows}-seed{self.seed}.json"
        return None if self.folder is None else self.folder / name


def fit(job: Fit, advance: Callable[[float], None]) -> float:
    """Mean squared error on held-out rows, from before if it was kept."""
    if job.file is not None and job.file.is_file():
        advance(1.0)
        return float(json.loads(job.file.read_text(encoding="utf-8")))
    sample = draw("hypercube", rows=job.rows, tests=4000, seed=job.seed)
    model = masked_network(job.active * job.share, job.active, seed=job.seed, own_scores=job.own)
    found = mean_squared_error(model, sample)
    if job.file is not None:
        job.file.parent.mkdir(parents=True, exist_ok=True)
        write_text(job.file, json.dumps(found))
    advance(1.0)
    return found


def run(request: Request) -> Finding:
    """Every budget, share of active units, and way to score, with every seed."""
    actives = (16, 32, 64) if request.quick else (512, 1024, 2048, 4096)
    whole = 2000 if request.quick else 40000
    variants = [(own, name) for own in (True, False) for name in SHARES if own or name != "dense"]
    wide_first = sorted(variants, key=lambda variant: -SHARES[variant[1]])  # so that no process is left alone for long
    cases = [(own, name, active) for active in reversed(actives) for own, name in wide_first]

    def job(case: tuple[bool, str, int], seed: int) -> Fit:
        own, name, active = case
        return Fit(own=own, share=SHARES[name], active=active, rows=whole, seed=seed, folder=request.folder)

    errors = run_cases(fit, cases, job=job, seeds=request.seeds, advance=request.advance)
    by_case = dict(zip(cases, errors, strict=True))
    found = {
        (own, name): list(zip(*(by_case[own, name, active] for active in actives), strict=True))
        for own, name in variants
    }
    rows = [_row(s, k, found) for k, s in enumerate(actives)]
    curves = [
        band(_label(own, name), x=[2 * s * (FEATURES + 1) for s in actives], runs=runs)
        for (own, name), runs in found.items()
    ]
    last = rows[-1]
    return Finding(
        rows=rows,
        curves=curves,
        sentence=f"At the largest budget the 25 % model has 1/{last['dense MSE'] / last['25 % MSE']:.1f} of the dense "
        "error, "
        f"and 1/{last['dense MSE'] / last['25 % MSE, separate scores']:.1f} with separate scores (paper: 1/5.8).",
        axes=("FLOPs of the active units", "mean squared error"),
        facts={
            "rows": whole,
            "variance of the target": draw("hypercube", rows=1, tests=4000, seed=0).variance,
            "seeds": request.seeds,
        },
    )


def _label(own: bool, name: str) -> str:
    return "dense" if name == "dense" else f"{name} active" + ("" if own else ", separate scores")


def _row(active: int, k: int, found: Mapping[tuple[bool, str], Sequence[Sequence[float]]]) -> dict[str, Any]:
    def mean(own: bool, name: str) -> float:
        return statistics.mean(run[k] for run in found[own, name])

    flops = 2 * active * (FEATURES + 1)
    published = PAPER.get(flops, {})
    return {
        "FLOPs": flops,
        "active": active,
        "dense MSE": mean(True, "dense"),
        "50 % MSE": mean(True, "50 %"),
        "25 % MSE": mean(True, "25 %"),
        "50 % MSE, separate scores": mean(False, "50 %"),
        "25 % MSE, separate scores": mean(False, "25 %"),
        **{f"paper {name}": published.get(name) for name in SHARES},
    }


EXPERIMENT = published(
    name="baykal-table1",
    title="Dense and data-dependent sparse models at equal FLOPs",
    source=f"{SOURCE}, table 1",
    differs=_DIFFERS,
    run=run,
)
