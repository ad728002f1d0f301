"""Rows, curves and a sentence from what a folder holds; what is unfinished says how far it is."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lazyneuron.experiments.experiment import band
from lazyneuron.experiments.reproduce.peng.regime.case import Case
from lazyneuron.experiments.reproduce.peng.regime.course import (
    SMOOTHED,
    Look,
    at,
    cut,
    cut_at_equal_loss,
    densities_of_blocks,
    factor_ratios,
    in_training,
    looks_until,
    shared_step,
)
from lazyneuron.experiments.reproduce.peng.vision import PUBLISHED

Course = Mapping[str, Any]
_TASKS = {
    "decoder": "next byte",
    "spans": "spans of bytes",
    "vision": "digits",
    "wide": "next byte, K K^T of full rank",
}
_HOW = {"scratch": "from scratch", "full": "fine-tuned", "lora": "fine-tuned by LoRA"}
_OPTIMIZERS = {"adamw": "AdamW", "adafactor": "Adafactor"}
_BEGIN = {
    "torch": "",
    "gpt2": "first weights as GPT-2's, ",
    "unit": "embeddings of deviation 1, ",
    "tokens": "tokens of deviation 1, ",
}
_LED = "led"  # the penalty says which density there is, at any loss
_MOMENTS = (0.05, 0.25, 1.0)  # shares of the steps at which factors are shown


class Comparison:
    """A case beside the first of its task, optimiser, tuning and penalty: the seeds that are furthest in both.

    Args:
        case: the case.
        mine, theirs: what is known of both for each seed; None for what has not begun.
        first: whether the case is that first one.
    """

    def __init__(
        self, case: Case, mine: Sequence[Course | None], theirs: Sequence[Course | None], *, first: bool
    ) -> None:
        self.case, self.first = case, first
        self.over = SMOOTHED if case.variant.pressure is None else 1  # a penalty's density falls as it is told to
        self.diverged = sum(bool(course and course["diverged"]) for course in mine)
        both = [(looks_until(a, case.steps), looks_until(b, case.steps)) for a, b in zip(mine, theirs, strict=True)]
        self.step = max(map(shared_step, both), default=0)
        self.pairs = [pair for pair in both if self.step and shared_step(pair) == self.step]

    @property
    def trained(self) -> str:
        """First weights where they are not the usual ones, from scratch or on from where, optimiser, clipping."""
        case = self.case
        after = f" after {case.start} steps" if case.tuning != "scratch" else ""
        clipped = ", clipped" if case.clipped else ""
        return f"{_BEGIN[case.begin]}{_HOW[case.tuning]}{after}, {_OPTIMIZERS[case.optimizer]}{clipped}"

    def mean(self, value: Callable[[list[Look], list[Look]], float | None]) -> float | None:
        """The mean over seeds of what is made of a pair; None if there is none, or a value is."""
        found = [value(mine, theirs) for mine, theirs in self.pairs]
        there = [one for one in found if one is not None]
        return statistics.mean(there) if there and len(there) == len(found) else None

    def row(self) -> dict[str, Any]:
        """As it stands in the table."""
        case, step = self.case, self.step

        def now(looks: Sequence[Look], key: str) -> float:
            return at(looks, step, key, over=self.over)

        return {
            "task": _TASKS[case.kind],
            "trained": self.trained,
            "variant": case.variant.name,
            "steps": step,
            "of": case.steps,
            "seeds": len(self.pairs),
            "diverged": self.diverged,
            "density": self.mean(lambda mine, _: now(mine, "density")),
            "in training": self.mean(lambda mine, _: in_training(mine, step)),
            "loss": self.mean(lambda mine, _: now(mine, "loss")),
            "loss change": self.mean(lambda mine, theirs: now(mine, "loss") / now(theirs, "loss") - 1),
            "accuracy": self.mean(lambda mine, _: now(mine, "accuracy")),
            "cut": self.mean(lambda mine, theirs: cut(now(mine, "density"), now(theirs, "density"))),
            "cut in training": self.mean(lambda mine, theirs: cut(in_training(mine, step), in_training(theirs, step))),
            "cut at equal loss": _LED if case.variant.pressure is not None else self.mean(self._cut_at_equal_loss),
            "paper": PUBLISHED if case.variant.name == "all three" else None,
        }

    def _cut_at_equal_loss(self, mine: Sequence[Look], theirs: Sequence[Look]) -> float | None:
        return 0.0 if mine == theirs else cut_at_equal_loss(mine, theirs, self.step)

    def factor_rows(self) -> list[dict[str, Any]]:
        """The factors of the identity against the other case, at a few moments."""
        made: list[dict[str, Any]] = []
        for share in _MOMENTS:
            step = shared_step(
                [k for k in looks if k["step"] <= share * self.step] for pair in self.pairs for looks in pair
            )
            if step and step not in [row["steps"] for row in made]:
                found = [factor_ratios(mine, theirs, step, over=self.over) for mine, theirs in self.pairs]
                means = {key: statistics.geometric_mean(one[key] for one in found) for key in found[0]}
                made.append({**self._named(), "steps": step, **means})
        return made

    def block_row(self) -> dict[str, Any] | None:
        """The density of each block in both, as means over the seeds; None when there is nothing yet."""
        both = [[densities_of_blocks(looks, self.step, over=self.over) for looks in pair] for pair in self.pairs]
        if not both:
            return None
        mine, theirs = (
            [statistics.mean(block) for block in zip(*each, strict=True)] for each in zip(*both, strict=True)
        )
        blocks = {f"block {k}": f"{b:.3f} -> {a:.3f}" for k, (a, b) in enumerate(zip(mine, theirs, strict=True), 1)}
        return {**self._named(), "steps": self.step, **blocks}

    def _named(self) -> dict[str, Any]:
        return {"task": _TASKS[self.case.kind], "trained": self.trained, "variant": self.case.variant.name}

    def curve(self, first: Comparison) -> dict[str, Any] | None:
        """Density over steps, between the lowest and the highest seed; its name says what is not as in the first."""
        steps = sorted(set.intersection(*({k["step"] for k in mine} for mine, _ in self.pairs))) if self.pairs else []
        if not steps:
            return None
        runs = [[k["density"] for k in mine if k["step"] in steps] for mine, _ in self.pairs]
        task = [] if self.case.kind == first.case.kind else [_TASKS[self.case.kind]]
        usual = first.trained.split(", ")
        other = [part for part in self.trained.split(", ") if part not in usual]
        return band(", ".join([*task, self.case.variant.name, *other]), x=steps, runs=runs)


def shown(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row in which what is missing is said; nothing in ``paper`` means that nothing is published."""
    missing = "not reached" if row["seeds"] else "not yet"
    return {key: missing if value is None and key != "paper" else value for key, value in row.items()}


def comparisons(cases: Sequence[Case], found: Sequence[Sequence[Course | None]]) -> list[Comparison]:
    """Each case beside the first of its kind."""
    firsts: dict[Any, int] = {}
    alike = [(c.kind, c.optimizer, c.tuning, c.begin, c.clipped, c.variant.pressure) for c in cases]
    numbers = [firsts.setdefault(key, n) for n, key in enumerate(alike)]
    return [
        Comparison(case, found[n], found[first], first=n == first)
        for n, (case, first) in enumerate(zip(cases, numbers, strict=True))
    ]


def unfinished(rows: Sequence[Mapping[str, Any]], seeds: int) -> int:
    """How many rows have not all steps and seeds."""
    return sum(row["steps"] < row["of"] or row["seeds"] + row["diverged"] < seeds for row in rows)


def sentence(rows: Sequence[Mapping[str, Any]], missing: int) -> str:
    """What a table says of the three modules together, and how many of its rows are unfinished."""
    said = [
        f"{row['task']}, {row['trained']}{_place(row)}: by {row['cut']:.2f} in inference and "
        f"{row['cut in training']:.2f} in training, at {100 * row['loss change']:+.1f} % of loss"
        for row in rows
        if row["variant"] == "all three" and isinstance(row["cut"], float)
    ]
    whole = "" if not missing else f" Unfinished: {missing} of {len(rows)} rows, which say how far they are."
    return f"All three modules cut the density: {'; '.join(said) or 'nothing is trained yet'}.{whole}"


def _place(row: Mapping[str, Any]) -> str:
    seeds = "" if row["seeds"] == 1 else f", {row['seeds']} seeds"
    return seeds + (f" (at {row['commit']})" if "commit" in row else "")
