"""Time several callables against each other: interleaved, so that drift of the machine hits all alike."""

from __future__ import annotations

import dataclasses
import itertools
import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

Input = TypeVar("Input")
Output = TypeVar("Output")
Order = Callable[[int], Sequence[str]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Times:
    """Samples of one callable.

    Attributes:
        samples_us: every counted run, in the order of the runs.
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
    def least_us(self) -> float:
        """The least; for decisions, not for reports."""
        return min(self.samples_us)

    @property
    def spread(self) -> float:
        """Upper over lower quartile."""
        low, high = self.quartiles_us
        return high / low


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ratios:
    """How many times longer one callable took than another.

    Attributes:
        samples: one a run, in the order of the runs.
    """

    samples: tuple[float, ...]

    @property
    def median(self) -> float:
        """The median."""
        return statistics.median(self.samples)

    @property
    def quartiles(self) -> tuple[float, float]:
        """Lower and upper quartile."""
        return quartiles(self.samples)


def quartiles(values: Sequence[float]) -> tuple[float, float]:
    """Lower and upper quartile, on a straight line between the two nearest values."""
    if len(values) == 1:
        return values[0], values[0]
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, high


def ratios(over: Times, under: Times) -> Ratios:
    """The ratios of two callables, run by run."""
    return Ratios(samples=tuple(a / b for a, b in zip(over.samples_us, under.samples_us, strict=True)))


def timed(call: Callable[[Input], Output], x: Input) -> tuple[Output, float]:
    """What a callable gives for an input, and how many microseconds that took."""
    start = time.perf_counter()
    output = call(x)
    return output, (time.perf_counter() - start) * 1e6


def interleaved(
    calls: Mapping[str, Callable[[Input], object]],
    inputs: Sequence[Input],
    *,
    budget_s: float,
    least: int,
    most: int | None = None,
    warm_up: int = 0,
    order: Order | None = None,
    in_a_row: int = 1,
    uncounted: int = 0,
    on_round: Callable[[int, float], None] | None = None,
) -> dict[str, Times]:
    """Call all in every round, and keep every counted sample.

    Args:
        calls: name -> callable of an input.
        inputs: taken in turn, the same ones for all callables.
        budget_s: no further round begins after this time, warm-up included.
        least: rounds that are counted even when the budget is spent.
        most: counted rounds at which it ends; None for no end but the budget's.
        warm_up: rounds before these that are not counted.
        order: round -> names in the order of their calls, a name maybe more than once; None for that of ``calls``.
        in_a_row: counted runs of a callable one after another.
        uncounted: runs before these in every turn, which find the caches full of what another callable has read.
        on_round: called after every round with the counted rounds so far and the seconds since the beginning.

    Returns:
        name -> its samples.
    """
    samples: dict[str, list[float]] = {name: [] for name in calls}
    began = time.perf_counter()
    for number in itertools.count():
        counts = number >= warm_up
        for name in order(number) if order is not None else calls:
            call, kept = calls[name], samples[name]
            for run in range(uncounted + in_a_row):
                took_us = timed(call, inputs[(number * in_a_row + run) % len(inputs)])[1]
                if counts and run >= uncounted:
                    kept.append(took_us)
        done, elapsed_s = max(0, number + 1 - warm_up), time.perf_counter() - began
        if on_round is not None:
            on_round(done, elapsed_s)
        if done == most or (done >= least and elapsed_s >= budget_s):
            break
    return {name: Times(samples_us=tuple(kept)) for name, kept in samples.items()}


def least_us(
    calls: Sequence[Callable[[int], object]], *, rounds: int = 7, budget_s: float = 0.25, warm_up: int = 2
) -> list[float]:
    """Least time of each call in microseconds.

    For decisions, not for reports: other work only ever adds time, so the least of interleaved rounds says most about
    the call itself. Each call comes right after the first one, so that none finds in the cache what a sibling with the
    same weights has just read. Where each run of the first takes longer than the budget, as products of a dtype
    without instructions do, all take turns twice and that is all.

    Args:
        calls: each takes the number of the round, to vary its input; the first one is the reference.
        rounds: counted rounds, at least three even when the budget is spent.
        budget_s: stop after this long.
        warm_up: rounds that are not counted, after a run or two of the first call that are not either.
    """
    names = [str(at) for at in range(len(calls))]
    named = dict(zip(names, calls, strict=True))
    if all(timed(calls[0], 0)[1] > 1e6 * budget_s for _ in range(2)):  # a first run may load or compile something
        times = interleaved(named, range(2), budget_s=0.0, least=2)
        return [times[name].least_us for name in names]
    beside = [name for other in names[1:] for name in (names[0], other)] or names
    times = interleaved(
        named,
        range(rounds + warm_up),
        budget_s=budget_s,
        least=min(3, rounds),
        most=rounds,
        warm_up=warm_up,
        order=lambda _: beside,
    )
    return [times[name].least_us for name in names]


def repeated(call: Callable[[], object], *, rounds: int, warm_up: int = 0) -> Times:
    """Samples of one callable by itself."""
    return interleaved({"": lambda _: call()}, [None], budget_s=0.0, least=rounds, most=rounds, warm_up=warm_up)[""]


def compared(
    calls: Mapping[str, Callable[[Input], object]],
    inputs: Sequence[Input],
    *,
    budget_s: float,
    seed: int,
    shares_memory: Sequence[str] = (),
    apart: Sequence[str] = (),
) -> dict[str, Times]:
    """Samples for a report: 7 to 101 rounds after two to warm up, each in a new order, so that no cache favours one.

    Args:
        calls: name -> callable of an input.
        inputs: taken in turn, one a round.
        budget_s: no further round begins after this time, but seven are made at least.
        seed: of the order within the rounds.
        shares_memory: names that read the same weights.
        apart: those of them that come right after a call outside the group, so that they do not find in the cache
            what another has just read.
    """
    order, shuffle = list(calls), random.Random(seed)

    def next_order(_: int) -> Sequence[str]:
        shuffle.shuffle(order)
        _set_apart(order, shares_memory, apart, shuffle)
        return order

    return interleaved(calls, inputs, budget_s=budget_s, least=7, most=101, warm_up=2, order=next_order)


def _set_apart(order: list[str], group: Sequence[str], apart: Sequence[str], shuffle: random.Random) -> None:
    """Move names of a group, in place, to right after calls outside the group; as many as there are such calls."""
    outside = [name for name in order if name not in group]
    for name, before in zip(apart, shuffle.sample(outside, len(outside)), strict=False):
        order.remove(name)
        order.insert(order.index(before) + 1, name)
