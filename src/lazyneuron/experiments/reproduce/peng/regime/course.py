"""Reading what trainings have shown: numbers at a step, cuts against another training, and the factors of both."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Look = Mapping[str, Any]
SMOOTHED = 3  # looks that a number is the mean of, as single ones are noisy at a constant rate
FACTORS = {
    "flatness AS_K": "as_up",
    "input |x|^2": "input_square",
    "slope s'^2": "slope",
    "gradient g^2 of active neurons": "gradient",
    "what these have in common": "together",
}


def looks_until(course: Mapping[str, Any] | None, steps: int) -> list[Look]:
    """The looks of a training up to some steps; none of one that diverged or has not begun."""
    if course is None or course["diverged"]:
        return []
    return [look for look in course["looks"] if look["step"] <= steps]


def shared_step(trainings: Iterable[Sequence[Look]]) -> int:
    """The last step at which all were looked at; 0 for none."""
    steps = [{look["step"] for look in looks} for looks in trainings]
    return max(set.intersection(*steps), default=0) if steps else 0


def at(looks: Sequence[Look], step: int, key: str, *, over: int = SMOOTHED) -> float:
    """A number at a step, the mean of so many looks up to it."""
    return statistics.mean(float(look[key]) for look in _last(looks, step, over))


def densities_of_blocks(looks: Sequence[Look], step: int, *, over: int = SMOOTHED) -> list[float]:
    """The density of each block at a step, in the model's order, the mean of so many looks up to it."""
    found = (look["densities"] for look in _last(looks, step, over))
    return [statistics.mean(each) for each in zip(*found, strict=True)]


def in_training(looks: Sequence[Look], step: int) -> float:
    """The density in training, a mean over all steps until then."""
    seen = [look for look in looks if look["step"] <= step]
    spans = [look["step"] - before for look, before in zip(seen, [0, *(s["step"] for s in seen)], strict=False)]
    mean: float = sum(look["train_density"] * span for look, span in zip(seen, spans, strict=True)) / sum(spans)
    return mean


def cut(mine: float, theirs: float) -> float:
    """By which share of theirs mine is lower."""
    return 1 - mine / theirs


def cut_at_equal_loss(mine: Sequence[Look], theirs: Sequence[Look], step: int) -> float | None:
    """The cut where this training was first as good as the other is at a step; None if it was not until then."""
    goal, density = at(theirs, step, "loss"), at(theirs, step, "density")
    good = (k for k in (look["step"] for look in mine) if k <= step and at(mine, k, "loss") <= goal)
    first = next(good, None)
    return None if first is None else cut(at(mine, first, "density"), density)


def factor_ratios(mine: Sequence[Look], theirs: Sequence[Look], step: int, *, over: int = SMOOTHED) -> dict[str, float]:
    """What each factor of the density identity is against the other training's: geometric means over blocks and looks.

    ``density = AS_K / (T n C)``, and the coefficient C is the product of the mean of ``|x|^2``, the mean squares of the
    slope and of the gradient where they are not 0, and of what they have in common; so the ratio of densities is that
    of AS_K by the product of the others.

    Returns:
        ``density of derivatives``, and what :data:`FACTORS` names.
    """
    names = {"density of derivatives": "derivative_density", **FACTORS}
    pairs = list(zip(_last(mine, step, over), _last(theirs, step, over), strict=True))
    return {title: math.exp(_mean_log_ratio(pairs, key)) for title, key in names.items()}


def _mean_log_ratio(pairs: Sequence[tuple[Look, Look]], key: str) -> float:
    found = [
        math.log(a[key] / b[key])
        for mine, theirs in pairs
        for a, b in zip(mine["factors"], theirs["factors"], strict=True)
        if a[key] > 0 and b[key] > 0  # a block that is dead has none of them
    ]
    return statistics.mean(found) if found else math.nan


def _last(looks: Sequence[Look], step: int, count: int) -> Sequence[Look]:
    return [look for look in looks if look["step"] <= step][-count:]
