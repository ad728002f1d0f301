"""How many ways affine functions split points."""

from __future__ import annotations

import math

import numpy as np

from lazyneuron.learn.checks import count

_FEW = 256  # factors of a binomial coefficient that are multiplied one by one
_TERMS = 2**18  # binomial coefficients that are added one by one
_UP = 1 + 2.0**-48  # more than what rounding takes away
_NOTHING = 40.0  # exp(-40) of a sum is below its rounding


def log_dichotomies(points: int, n: int) -> float:
    """``ln`` of ``2 sum over i <= n of C(points - 1, i)``: how many ways affine functions split points, at most.

    Args:
        points: m.
        n: inputs of the functions.

    Returns:
        The logarithm, never below the exact one and at most 1e-12 of it above up to 10^9 inputs.

    Raises:
        ConfigError: a number is no count.

    Cost: at most 2^18 additions, whatever n is.

    Source: Cover (1965); Stirling's series encloses factorials (Robbins 1955).
    """
    m, n = count(points, "The number of points"), count(n, "n", least=0)
    everything = m * math.log(2) * _UP
    if m - 1 <= n:
        return everything
    if 2 * n < m - 1:
        return min((math.log(2) + _log_sum(m - 1, n)) * _UP, everything)
    # all subsets, less those of more than n: as many as of fewer than m - 1 - n
    rest = _log_sum(m - 1, m - 2 - n) / _UP**2 + (math.log(2) - everything)
    return min((everything + math.log1p(-math.exp(min(rest, -math.log(2))))) * _UP, everything)


def _log_sum(m: int, n: int) -> float:
    """``ln sum over i <= n of C(m, i)`` for n below m / 2, from the largest term down."""
    steep = math.log1p((m - 2 * n + 1) / n) if n else 1.0  # by which logarithms of terms fall at least
    terms = min(n, _TERMS, math.ceil(_NOTHING / steep) + 1)
    below = np.arange(terms, dtype=np.float64)
    ratios = (float(n) - below) / (float(m - n + 1) + below)
    sizes = np.cumprod(ratios)
    total = 1.0 + math.fsum(sizes)
    if terms < n:  # the others add up to less than a geometric series
        total += float(sizes[-1]) * ((n - terms) / (m - 2 * n + 1 + 2 * terms))
    return _log_choose(m, n) + math.log(total)


def _log_choose(m: int, n: int) -> float:
    """``ln C(m, n)`` for n below m / 2, without the cancellation of three large logarithms of factorials."""
    if n <= _FEW:
        return math.fsum(math.log((m - i) / (i + 1)) for i in range(n))
    share = n / m
    entropy = -n * math.log(share) - (m - n) * math.log1p(-share)
    root = (-math.log(2 * math.pi) - math.log(n) - math.log1p(-share)) / 2
    # the series of ln m! ends above it with its third term, those of the others below with their second
    most = 1 / (12 * m) - 1 / (360 * m**3) + 1 / (1260 * m**5)
    least = sum(1 / (12 * i) - 1 / (360 * i**3) for i in (n, m - n))
    return entropy + root + most - least
