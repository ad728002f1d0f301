"""Where an activation function is zero or flat."""

from __future__ import annotations

import dataclasses
import math

from torch import Tensor

INF = math.inf


@dataclasses.dataclass(frozen=True)
class ZeroInterval:
    """Where an activation function is exactly 0: ``(-inf, left] U [low, high]``, closed at the finite ends.

    The second piece is empty when ``low > high``. ReLU is ``ZeroInterval(0.0)``.
    """

    left: float = -INF
    low: float = INF
    high: float = -INF

    def contains(self, z: Tensor) -> Tensor:
        """Boolean tensor: is each pre-activation in the set?"""
        return (z <= self.left) | ((z >= self.low) & (z <= self.high))

    def holds(self, lower: Tensor, upper: Tensor) -> Tensor:
        """Boolean tensor: does the whole interval ``[lower, upper]`` lie in one piece? False at NaN."""
        return (upper <= self.left) | ((lower >= self.low) & (upper <= self.high))

    @property
    def empty(self) -> bool:
        """True when the function is zero nowhere (or at isolated points only)."""
        return self.left == -INF and self.low >= self.high


NOWHERE = ZeroInterval()
