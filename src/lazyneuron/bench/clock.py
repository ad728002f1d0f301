"""Times of several callables: interleaved, in a new order each round, so that drift and caches treat all alike."""

from __future__ import annotations

import dataclasses
import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence

from torch import Tensor

_WARM_UP = 2
_LEAST, _MOST = 7, 101


@dataclasses.dataclass(frozen=True, kw_only=True)
class Times:
    """Samples of one callable.

    Attributes:
        samples_us: one a round, in the order of the rounds.
    """

    samples_us: tuple[float, ...]

    @property
    def median_us(self) -> float:
        """The median."""
        return statistics.median(self.samples_us)

    @property
    def quartiles_us(self) -> tuple[float, float]:
        """Lower and upper quartile."""
        return quartiles(self.samples_us)

    @property
    def spread(self) -> float:
        """Upper over lower quartile."""
        low, high = self.quartiles_us
        return high / low


def quartiles(values: Sequence[float]) -> tuple[float, float]:
    """Lower and upper quartile, as two of the values."""
    ordered = sorted(values)
    return ordered[len(ordered) // 4], ordered[3 * len(ordered) // 4]


def interleaved(
    calls: Mapping[str, Callable[[Tensor], object]],
    inputs: Sequence[Tensor],
    *,
    budget_s: float,
    seed: int,
    shares_memory: Sequence[str] = (),
    apart: Sequence[str] = (),
) -> dict[str, Times]:
    """Call all in every round, each round with the next input.

    Args:
        calls: name -> callable of an input.
        inputs: taken in turn.
        budget_s: no further round begins after this time, but seven are made at least.
        seed: of the order within the rounds.
        shares_memory: names that read the same weights.
        apart: those of them that come right after a call outside the group, so that they do not find in the cache
            what another has just read.
    """
    samples: dict[str, list[float]] = {name: [] for name in calls}
    order, shuffle = list(calls), random.Random(seed)
    began = time.perf_counter()
    for number in range(_WARM_UP + _MOST):
        shuffle.shuffle(order)
        _set_apart(order, shares_memory, apart, shuffle)
        x = inputs[number % len(inputs)]
        for name in order:
            call = calls[name]
            start = time.perf_counter()
            call(x)
            took = time.perf_counter() - start
            if number >= _WARM_UP:
                samples[name].append(took * 1e6)
        if number + 1 >= _WARM_UP + _LEAST and time.perf_counter() - began > budget_s:
            break
    return {name: Times(samples_us=tuple(values)) for name, values in samples.items()}


def _set_apart(order: list[str], group: Sequence[str], apart: Sequence[str], shuffle: random.Random) -> None:
    """Move names of a group, in place, to right after calls outside the group; as many as there are such calls."""
    outside = [name for name in order if name not in group]
    for name, before in zip(apart, shuffle.sample(outside, len(outside)), strict=False):
        order.remove(name)
        order.insert(order.index(before) + 1, name)


def ratios(over: Times, under: Times) -> list[float]:
    """Sorted ratios of two callables, round by round."""
    return sorted(a / b for a, b in zip(over.samples_us, under.samples_us, strict=True))
