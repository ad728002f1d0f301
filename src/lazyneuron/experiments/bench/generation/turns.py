"""Engines that take turns, so that what changes on the machine meanwhile meets all of them."""

from __future__ import annotations

import dataclasses
import random
import statistics
import time
from collections.abc import Callable, Mapping

from lazyneuron.experiments.experiment import SEED

Turn = Callable[[int], list[float]]  # number of the round -> milliseconds
_PAUSE_S = 0.05  # threads that wait for more work have gone to sleep by then


@dataclasses.dataclass(frozen=True, kw_only=True)
class Turns:
    """What the turns of one part took.

    Attributes:
        samples_ms: engine -> for every round its milliseconds.
        gbps: read in every round, between the engines.
        own_idle: largest share of one processor that this process took while another engine ran.
    """

    samples_ms: Mapping[str, list[list[float]]]
    gbps: list[float]
    own_idle: float

    def median_ms(self, engine: str) -> float:
        """Over all samples of an engine."""
        return statistics.median(ms for turn in self.samples_ms[engine] for ms in turn)

    def ratios(self, engine: str, over: str) -> list[float]:
        """How many times as fast as another engine, round by round."""
        pairs = zip(self.samples_ms[over], self.samples_ms[engine], strict=True)
        return [statistics.median(theirs) / statistics.median(own) for theirs, own in pairs]


def in_turns(engines: Mapping[str, Turn], *, rounds: int, read: Callable[[], float], others: tuple[str, ...]) -> Turns:
    """Every engine once a round, in a new order each time; the first round is not counted.

    Args:
        engines: name -> what takes a turn.
        rounds: that count.
        read: the bandwidth at the moment.
        others: engines that run in another process.
    """
    samples: dict[str, list[list[float]]] = {name: [] for name in engines}
    order, shuffle, gbps, own = list(engines), random.Random(SEED), [], 0.0
    for number in range(rounds + 1):
        shuffle.shuffle(order)
        for name in order:
            time.sleep(_PAUSE_S)
            began = time.perf_counter(), time.process_time()
            took = engines[name](number)
            if name in others:
                wall, busy = time.perf_counter() - began[0], time.process_time() - began[1]
                own = max(own, busy / wall)
            if number:
                samples[name].append(took)
        if number:
            time.sleep(_PAUSE_S)
            gbps.append(read())
    return Turns(samples_ms=samples, gbps=gbps, own_idle=own)
