"""Scales and tick marks of charts."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence


@dataclasses.dataclass(frozen=True, kw_only=True)
class Axis:
    """A linear or logarithmic scale from data to a stretch of pixels.

    Attributes:
        low, high: ends of the data range.
        start, end: pixels of those ends; ``end`` may be smaller.
        ticks: data values that are marked.
        log: whether equal factors are equal distances.
    """

    low: float
    high: float
    start: float
    end: float
    ticks: tuple[float, ...]
    log: bool = False

    def __call__(self, value: float) -> float:
        """The pixel of a value."""
        low, high, at = (math.log(v) if self.log else v for v in (self.low, self.high, value))
        return self.start + (at - low) / (high - low) * (self.end - self.start)


def axis(
    values: Sequence[float],
    *,
    start: float,
    end: float,
    count: int = 4,
    span: float = 0.0,
    within: tuple[float, float] = (-math.inf, math.inf),
) -> Axis:
    """A linear axis whose round ends enclose all values.

    Args:
        values: at least one finite number.
        start: pixel of the low end.
        end: pixel of the high end.
        count: about how many tick marks.
        span: the axis covers at least this much.
        within: smallest and largest value that make sense; the axis does not go beyond them.
    """
    low, high = min(values), max(values)
    margin = max((high - low) * 0.08, (span - (high - low)) / 2) or abs(high) * 0.1 or 1.0
    step = _round_step((high - low + 2 * margin) / count)
    first, last = math.floor((low - margin) / step), math.ceil((high + margin) / step)
    slack = 1e-9 * step
    ticks = tuple(k * step for k in range(first, last + 1) if within[0] - slack <= k * step <= within[1] + slack)
    return Axis(low=ticks[0], high=ticks[-1], start=start, end=end, ticks=ticks)


def _round_step(step: float) -> float:
    power = 10.0 ** math.floor(math.log10(step))
    return next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= step * (1 - 1e-9))
