"""``lazyneuron reproduce capacity-...``: loss against measured time for blocks 1 to 64 times as wide."""

from __future__ import annotations

import dataclasses
import functools
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import platformdirs

from lazyneuron.experiments.experiment import Finding, Request, published
from lazyneuron.experiments.jobs import run_cases
from lazyneuron.experiments.reproduce.baykal.samples import SOURCE
from lazyneuron.experiments.reproduce.capacity.tasks import WIDTH, task_of
from lazyneuron.experiments.reproduce.capacity.timing import AT_A_TIME, Timed, time_blocks
from lazyneuron.experiments.reproduce.capacity.training import Job, Kind, train_and_keep

_LABELS: dict[Kind, str] = {
    "dense": "dense",
    "switch": "routed, Switch",
    "lsh": "routed, LSH",
    "sparse": "certified sparse",
}
_DIFFERS = (
    "The paper promises capacity at constant cost and measures no time. Blocks of width 64 with 64 neurons, and 4, 16 "
    "and 64 times as many: dense; routed to one expert of 64 neurons; or trained with the penalty that makes as many "
    "fire as the share says, and run by certified skipping. All see the same batches of 512 tokens, none twice. Times "
    "are those of the MLP blocks alone, on one thread."
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """How large the comparison is.

    Attributes:
        factors: widths over the plain block's.
        hidden: neurons of the plain block.
        steps: of each training.
        rounds: of timing.
    """

    factors: tuple[int, ...] = (4, 16, 64)
    hidden: int = WIDTH
    steps: int = 1500
    rounds: int = 40


QUICK = Plan(factors=(4,), hidden=8, steps=20, rounds=2)
Case = tuple[Kind, int]


def cases(plan: Plan) -> list[Case]:
    """The plain block, and every kind at every width."""
    return [("dense", 1), *((kind, factor) for factor in plan.factors for kind in _LABELS)]


def run(request: Request, *, name: str, steps: int) -> Finding:
    """Train what is not there yet, then time everything."""
    plan = QUICK if request.quick else Plan(steps=steps)
    chosen = cases(plan)
    root = platformdirs.user_cache_path("lazyneuron") / "capacity" if request.folder is None else request.folder

    def job(case: Case, seed: int) -> Job:
        kind, factor = case
        return Job(
            task=name, kind=kind, factor=factor, hidden=plan.hidden, steps=plan.steps, seed=seed, folder=Path(root)
        )

    def trainings(share: float, note: str) -> None:
        request.advance(0.9 * share, note)

    results = run_cases(train_and_keep, chosen, job=job, seeds=request.seeds, advance=trainings)
    request.advance(0.9, "timing")
    times = time_blocks({label(case): job(case, 0) for case in chosen}, rounds=plan.rounds)
    rows = [_row(case, plan, found, times[label(case)]) for case, found in zip(chosen, results, strict=True)]
    for tokens in AT_A_TIME:
        mark_front(rows, _us(tokens), _front(tokens))
    request.advance(1.0, "timed")
    measured = task_of(name).measured
    return Finding(
        rows=rows,
        curves=_curves(chosen, rows),
        sentence=sentence(rows),
        axes=("microseconds a token in the MLP blocks, one token at a time", measured),
        facts={"task": name, "loss": measured, "steps": plan.steps, "tokens a step": 512, "seeds": request.seeds},
        logarithmic="x",
    )


def label(case: Case) -> str:
    """A case as in the table."""
    kind, factor = case
    return f"{_LABELS[kind]}, {factor}x"


def _us(tokens: int) -> str:
    return f"us a token, {tokens} at a time"


def _front(tokens: int) -> str:
    return f"on the Pareto front, {tokens} at a time"


def _row(case: Case, plan: Plan, found: Sequence[Mapping[str, Any]], timed: Timed) -> dict[str, Any]:
    last = [one["losses"][-1][1] for one in found]
    return {
        "MLP blocks": label(case),
        "neurons": plan.hidden * case[1],
        "share computed": statistics.mean(d for one in found for d in one["densities"]),
        "loss": statistics.mean(last),
        "lowest": min(last),
        "highest": max(last),
        **{_us(tokens): timed.us_a_token[tokens] for tokens in AT_A_TIME},
    }


def mark_front(rows: Sequence[dict[str, Any]], time: str, column: str) -> None:
    """Say of each row whether no other one is as fast and as good, and better in one of both."""
    points = [(row[time], row["loss"]) for row in rows]
    for row, own in zip(rows, points, strict=True):
        row[column] = not any(p != own and p[0] <= own[0] and p[1] <= own[1] for p in points)


def _curves(chosen: Sequence[Case], rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    found = []
    for kind, name in _LABELS.items():
        points = [row for case, row in zip(chosen, rows, strict=True) if case[0] == kind]
        x = [row[_us(1)] for row in points]
        found.append({"label": name, "x": x, **{y: [row[key] for row in points] for y, key in _BAND.items()}})
    return found


_BAND = {"y": "loss", "low": "lowest", "high": "highest"}


def sentence(rows: Sequence[Mapping[str, Any]]) -> str:
    """What is gained against the plain block, and against the dense block of as many neurons, at the widest."""
    plain, widest = rows[0], max(row["neurons"] for row in rows)
    parts = []
    for row in (r for r in rows[1:] if r["neurons"] == widest):
        slower = [f"{row[_us(tokens)] / plain[_us(tokens)]:.1f}" for tokens in AT_A_TIME]
        parts.append(f"{row['MLP blocks']} {row['loss']:.3g} at {' and '.join(slower)} times its time")
    fronts = []
    for tokens in AT_A_TIME:
        best = [row["MLP blocks"] for row in sorted(rows, key=lambda r: r[_us(tokens)]) if row[_front(tokens)]]
        fronts.append(f"with {tokens} at a time {'; '.join(best)}")
    return (
        f"Loss {plain['loss']:.3g} of the plain block; {', '.join(parts)} (1 and {AT_A_TIME[1]} tokens at a time). No "
        f"other is as fast and as good: {', '.join(fronts)}."
    )


_TITLES = {
    "language": ("the next byte", 1000),
    "hypercube": ("a hypercube function of 10 coordinates", 1500),
    "lipschitz": ("a Lipschitz function of 3 coordinates", 1500),
}
EXPERIMENTS = tuple(
    published(
        name=f"capacity-{name}",
        title=f"Capacity at constant cost: {title}",
        source=f"{SOURCE}, theorems 4.1 and 4.3; the comparison is ours",
        differs=_DIFFERS,
        run=functools.partial(run, name=name, steps=steps),
        seeds=1,
    )
    for name, (title, steps) in _TITLES.items()
)
