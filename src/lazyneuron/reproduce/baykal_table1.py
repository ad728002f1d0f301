"""Baykal et al., table 1: dense and sparse models at equal FLOPs."""

from __future__ import annotations

import statistics
from typing import Any

from lazyneuron.core.record import Record
from lazyneuron.reproduce.baykal_data import CLOSED_FORM, FEATURES, SOURCE, draw, held_error, masked_network
from lazyneuron.reproduce.experiment import Experiment, Request, band, record_of

PAPER = {
    18432: {"dense": 0.01015, "50 %": 0.01014, "25 %": 0.009655},
    36864: {"dense": 0.01009, "50 %": 0.007438, "25 %": 0.005054},
    73728: {"dense": 0.01046, "50 %": 0.006115, "25 %": 0.001799},
}
SHARES = {"dense": 1, "50 %": 2, "25 %": 4}
_DIFFERS = (
    f"{CLOSED_FORM} The budgets are a quarter of the paper's, so that 25 % active of the largest (4096 units) can be "
    "solved in closed form. The hypercube target; FLOPs are 2 active (inputs + 1). With units scored by their own "
    "pre-activation, half of them is nearly what ReLU keeps anyway, so 50 % gains little; the second group scores them "
    "by random weights of their own."
)


def run(request: Request) -> Record:
    """Every budget, share of active units, and way to score, with every seed."""
    actives = (16, 32, 64) if request.quick else (256, 512, 1024)
    samples = [
        draw("hypercube", rows=2000 if request.quick else 20000, tests=4000, seed=s) for s in range(request.seeds)
    ]
    found: dict[tuple[bool, str], list[list[float]]] = {}
    variants = [(own, name) for own in (True, False) for name in SHARES if own or name != "dense"]
    for number, (own, name) in enumerate(variants):
        found[own, name] = [
            [held_error(masked_network(s * SHARES[name], s, seed=seed, own_scores=own), sample) for s in actives]
            for seed, sample in enumerate(samples)
        ]
        request.advance((number + 1) / len(variants), f"{name}, {'own' if own else 'separate'} scores")
    rows = [_row(s, k, found) for k, s in enumerate(actives)]
    curves = [
        band(_label(own, name), x=[2 * s * (FEATURES + 1) for s in actives], runs=runs)
        for (own, name), runs in found.items()
    ]
    last = rows[-1]
    return record_of(
        "baykal-table1",
        rows=rows,
        curves=curves,
        says=(
            f"At the largest budget the 25 % model has 1/{last['dense MSE'] / last['25 % MSE']:.1f} of the dense "
            "error, "
            f"and 1/{last['dense MSE'] / last['25 % MSE, separate scores']:.1f} with separate scores (paper, at four "
            "times the FLOPs: 1/5.8)."
        ),
        facts={
            "rows": len(samples[0].x),
            "variance of the target": samples[0].variance,
            "seeds": request.seeds,
            "quick": request.quick,
        },
        differs=_DIFFERS,
        axes=("FLOPs of the active units", "mean squared error"),
    )


def _label(own: bool, name: str) -> str:
    return "dense" if name == "dense" else f"{name} active" + ("" if own else ", separate scores")


def _row(active: int, k: int, found: dict[tuple[bool, str], list[list[float]]]) -> dict[str, Any]:
    def mean(own: bool, name: str) -> float:
        return statistics.mean(run[k] for run in found[own, name])

    flops = 2 * active * (FEATURES + 1)
    at_four = PAPER.get(4 * flops, {})
    return {
        "FLOPs": flops,
        "active": active,
        "dense MSE": mean(True, "dense"),
        "50 % MSE": mean(True, "50 %"),
        "25 % MSE": mean(True, "25 %"),
        "50 % MSE, separate scores": mean(False, "50 %"),
        "25 % MSE, separate scores": mean(False, "25 %"),
        **{f"paper {name}, 4x FLOPs": at_four.get(name) for name in SHARES},
    }


EXPERIMENT = Experiment(
    name="baykal-table1",
    title="Dense and data-dependent sparse models at equal FLOPs",
    source=f"{SOURCE}, table 1",
    differs=_DIFFERS,
    run=run,
)
