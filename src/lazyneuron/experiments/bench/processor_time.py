"""Processor time: what a process took itself, so that waiting for other load does not count."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import TypeVar

_Result = TypeVar("_Result")


def clocked(work: Callable[[], _Result]) -> tuple[_Result, float]:
    """The result, and the processor seconds that this process took."""
    start = time.process_time()
    result = work()
    return result, time.process_time() - start


def median_s(work: Callable[[], object], *, rounds: int) -> float:
    """The median of the processor seconds of several calls."""
    return statistics.median(clocked(work)[1] for _ in range(rounds))
