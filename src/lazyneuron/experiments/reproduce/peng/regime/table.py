"""Rows, curves and a sentence from what the folder holds; what is unfinished says how far it is."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from lazyneuron.experiments.reproduce.peng.regime.case import Case

Look = Mapping[str, Any]
_SMOOTHED = 3  # looks that a number is the mean of, as single ones are noisy at a constant rate
_TASKS = {"decoder": "next byte", "spans": "spans of bytes", "vision": "digits"}


def course_until(course: Mapping[str, Any] | None, steps: int) -> list[Look]:
    """The looks of a training up to some steps; none of one that diverged or has not begun."""
    if course is None or course["diverged"]:
        return []
    return [look for look in course["looks"] if look["step"] <= steps]


def shared(mine: Sequence[Look], theirs: Sequence[Look]) -> int:
    """The last step at which both were looked at; 0 for none."""
    return max({look["step"] for look in mine} & {look["step"] for look in theirs}, default=0)


def at(looks: Sequence[Look], step: int, key: str) -> float:
    """A number at a step, the mean with the looks before it."""
    before = [look[key] for look in looks if look["step"] <= step][-_SMOOTHED:]
    return statistics.mean(before)


def in_training(looks: Sequence[Look], step: int) -> float:
    """The density in training, a mean over all steps so far."""
    seen = [look for look in looks if look["step"] <= step]
    spans = [b["step"] - a for b, a in zip(seen, [0, *(look["step"] for look in seen)], strict=False)]
    return sum(look["train_density"] * span for look, span in zip(seen, spans, strict=True)) / sum(spans)


def cut_at_equal_loss(mine: Sequence[Look], theirs: Sequence[Look], step: int) -> float | None:
    """The relative cut where this training was first as good as the other is at the end; None if it never was."""
    goal, density = at(theirs, step, "loss"), at(theirs, step, "density")
    for look in mine:
        if look["step"] <= step and at(mine, look["step"], "loss") <= goal:
            return 1 - at(mine, look["step"], "density") / density
    return None


def rows(
    cases: Sequence[Case], found: Sequence[Sequence[Mapping[str, Any] | None]], published: str
) -> list[dict[str, Any]]:
    """One row a case; cases with the same task, optimiser and tuning are compared with the first of them."""
    firsts: dict[Any, int] = {}
    made = []
    for number, case in enumerate(cases):
        first = firsts.setdefault((case.kind, case.optimizer, case.tuning), number)
        pairs = [
            (course_until(mine, case.steps), course_until(theirs, case.steps))
            for mine, theirs in zip(found[number], found[first], strict=True)
        ]
        made.append(_row(case, pairs, found[number], published))
    return made


def _row(
    case: Case, pairs: Sequence[tuple[list[Look], list[Look]]], courses: Sequence[Any], published: str
) -> dict[str, Any]:
    both = [(mine, theirs, shared(mine, theirs)) for mine, theirs in pairs]
    both = [(mine, theirs, step) for mine, theirs, step in both if step]

    def mean(values: Sequence[float]) -> float | None:
        return statistics.mean(values) if values else None

    equal = [cut_at_equal_loss(*each) for each in both]
    reached = [cut for cut in equal if cut is not None]
    diverged = sum(bool(course and course["diverged"]) for course in courses)
    asked = case.recipe_is_doubly_biased
    return {
        "task": _TASKS[case.kind],
        "trained": _trained(case),
        "variant": case.variant.name,
        "steps": min((step for *_, step in both), default=0),
        "of": case.steps,
        "seeds": len(both),
        "diverged": diverged,
        "density": mean([at(mine, step, "density") for mine, _, step in both]),
        "in training": mean([in_training(mine, step) for mine, _, step in both]),
        "loss": mean([at(mine, step, "loss") for mine, _, step in both]),
        "accuracy": mean([at(mine, step, "accuracy") for mine, _, step in both]),
        "relative cut": mean(
            [1 - at(mine, step, "density") / at(theirs, step, "density") for mine, theirs, step in both]
        ),
        "relative cut in training": mean(
            [1 - in_training(mine, step) / in_training(theirs, step) for mine, theirs, step in both]
        ),
        "relative cut at equal loss": mean(reached) if len(reached) == len(both) else None,
        "paper": published if asked else None,
    }


def _trained(case: Case) -> str:
    how = {"scratch": "from scratch", "full": "fine-tuned", "lora": "fine-tuned by LoRA"}[case.tuning]
    return f"{how}, {'Adafactor' if case.optimizer == 'adafactor' else 'AdamW'}"
