"""Smooth functions whose small values are taken as zero, and the interval on which they are."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from lazyneuron.blocks.interval import INF, ZeroInterval


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


def thresholded_zero(smooth: Callable[[float], float], lowest: float) -> Callable[[float], ZeroInterval]:
    """Where ``|smooth(z)| <= t``, for a function that dips once to ``smooth(lowest) < 0`` and then rises.

    The ends are moved inwards by 1e-6 (relative and absolute): the model evaluates the smooth function in fp32,
    and a neuron within that rounding of the end must be computed, not certified.
    """

    def zero(t: float) -> ZeroInterval:
        def inward(z: float, sign: float) -> float:
            return z + sign * (1e-6 + 1e-6 * abs(z))

        high = inward(_root(lambda z: smooth(z) - t, 0.0, 2.0 + 2 * t)[0], -1.0) if t > 0 else 0.0
        if t >= -smooth(lowest) * (1 + 1e-6):
            return ZeroInterval(high)
        left = inward(_root(lambda z: smooth(z) + t, -40.0, lowest)[0], -1.0) if t > 0 else -INF
        low = inward(_root(lambda z: smooth(z) + t, lowest, 0.0)[1], 1.0) if t > 0 else 0.0
        return ZeroInterval(left, low, high) if low <= high else ZeroInterval(left)

    return zero


def silu(z: float) -> float:
    """The function at one point, in float64."""
    return z / (1 + math.exp(-z)) if z > -700 else 0.0


def gelu(z: float) -> float:
    """The function at one point, in float64."""
    return 0.5 * z * math.erfc(-z / math.sqrt(2))


def gelu_tanh(z: float) -> float:
    """The function at one point, in float64."""
    return 0.5 * z * (1 + math.tanh(math.sqrt(2 / math.pi) * (z + 0.044715 * z**3)))
