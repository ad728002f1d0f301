"""Smooth functions whose small values are taken as zero, and the interval on which they are."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from lazyneuron.blocks.interval import INF, ZeroInterval

#: What an fp32 evaluation of a smooth function errs by; tests/blocks compares torch's with it.
RELATIVE = 2.0**-20
TINY = 2.0**-118  # SiLU's exponential overflows at -88.7, where the function is a little below this


def thresholded(smooth: Callable[[Tensor], Tensor]) -> Callable[[Tensor, float], Tensor]:
    """``smooth(z)`` where its magnitude is above the threshold, else 0."""

    def value(z: Tensor, t: float) -> Tensor:
        s = smooth(z)
        return torch.where(s.abs() <= t, torch.zeros_like(s), s)

    return value


def _root(function: Callable[[float], float], a: float, b: float) -> tuple[float, float]:
    """A bracket [a, b] of one ulp with a sign change of ``function``."""
    sign = function(a) > 0
    while True:
        middle = (a + b) / 2
        if middle in (a, b):
            return a, b
        if (function(middle) > 0) == sign:
            a = middle
        else:
            b = middle


def thresholded_zero(
    smooth: Callable[[float], float], lowest: float, *, noise: float, quiet: float
) -> Callable[[float], ZeroInterval]:
    """Where every fp32 evaluation of a smooth function has magnitude <= t.

    The function dips once to ``smooth(lowest) < 0`` and rises from there to both sides. An evaluation at ``z`` errs by
    at most ``RELATIVE |smooth(z)| + noise |z| + TINY``; ``noise`` stands for the cancellation in ``1 + erf`` and
    ``1 + tanh``, which is over below ``quiet``, where they are exactly 0.
    """

    def most(z: float) -> float:
        return abs(smooth(z)) * (1 + RELATIVE) + TINY + (noise * abs(z) if z > quiet else 0.0)

    def zero(t: float) -> ZeroInterval:
        if t <= TINY:
            return ZeroInterval(-INF, 0.0, 0.0)

        def excess(z: float) -> float:
            return most(z) - t

        high = _root(excess, 0.0, min(2.0 + 2 * t, 1e308))[0]
        if t >= most(lowest) + noise * abs(quiet):
            return ZeroInterval(high)
        if excess(lowest) <= 0:  # within the noise of the dip
            return ZeroInterval(2 * lowest, lowest, high)
        low = _root(excess, lowest, 0.0)[1]
        if excess(quiet) > 0:
            return ZeroInterval(_root(excess, 8 * quiet, quiet)[0], low, high)
        above = math.nextafter(quiet, 0.0)
        return ZeroInterval(_root(excess, above, lowest)[0] if excess(above) <= 0 else quiet, low, high)

    return zero


def silu(z: float) -> float:
    """The function at one point, in float64."""
    return z / (1 + math.exp(-z)) if z > -700 else 0.0


def gelu(z: float) -> float:
    """The function at one point, in float64."""
    return 0.5 * z * math.erfc(-z / math.sqrt(2))


def gelu_tanh(z: float) -> float:
    """The function at one point, in float64; (1 + tanh u) / 2 as a logistic function, which does not cancel."""
    u = math.sqrt(2 / math.pi) * z * (1 + 0.044715 * z * z)
    return z / (1 + math.exp(-2 * u)) if u > -350 else 0.0
