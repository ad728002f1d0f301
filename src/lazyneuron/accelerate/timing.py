"""Time several callables against each other: interleaved, so that drift of the machine hits all alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence


def interleaved_us(
    calls: Sequence[Callable[[int], object]], *, rounds: int = 7, budget_s: float = 0.25, warmup: int = 2
) -> list[float]:
    """Least time of each call in microseconds, taken round-robin.

    For decisions, not for reports: other work only ever adds time, so the least of interleaved rounds says most about
    the call itself. Each call comes right after the first one, so that none finds in the cache what a sibling with the
    same weights has just read.

    Args:
        calls: each takes the number of the round, to vary its input; the first one is the reference.
        rounds: counted rounds, at least three even when the budget is spent.
        budget_s: stop after this long.
        warmup: rounds that are not counted.
    """
    samples: list[list[float]] = [[] for _ in calls]
    order = [at for other in range(1, len(calls)) for at in (0, other)] or [0]
    began = time.perf_counter()
    for number in range(rounds + warmup):
        for at in order:
            start = time.perf_counter()
            calls[at](number)
            took = time.perf_counter() - start
            if number >= warmup or number == rounds + warmup - 1:
                samples[at].append(took * 1e6)
        if len(samples[-1]) >= 3 and time.perf_counter() - began > budget_s:
            break
    return [min(kept) for kept in samples]
