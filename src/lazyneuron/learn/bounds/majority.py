"""The generalisation gap of the majority rule on clusters, exactly."""

from __future__ import annotations

import math

import numpy as np

from lazyneuron.core.errors import ConfigError
from lazyneuron.learn.checks import count
from lazyneuron.ops.array import Array

_MOST = 2**22  # sizes of a cluster that are added up
_FEW = 64  # pairs of signs of which the mean distance is counted; beyond, its series is as precise


def majority_gap(q: int, rows: int) -> float:
    """Exact 0-1 generalisation gap of the majority rule on q equally likely clusters with random labels.

    ``(q / 2m) E[J C(J - 1, floor((J - 1) / 2)) / 2^(J - 1)]`` with ``J ~ Bin(m, 1/q)``; times ``2 k A`` it is the
    Rademacher complexity of the clusters.

    Args:
        q: clusters.
        rows: m.

    Raises:
        ConfigError: a number is no count, or a cluster's size varies so much that the sum has too many terms.

    Cost: about ``24 sqrt(m / q)`` terms.

    Source: ours.
    """
    q, m = count(q, "q"), count(rows, "The number of rows")
    if q == 1:
        return float(_mean_distance(np.array([float(m)]))[0]) / (2 * m)
    reach = 12 * math.sqrt(m / q * (1 - 1 / q)) + 30
    if 2 * reach > _MOST:
        raise ConfigError(
            f"The sum over the sizes of a cluster has about {2 * reach:.2g} terms, at most {_MOST} are added; the gap "
            f"is close to sqrt(q / (2 pi m)) = {math.sqrt(q / (2 * math.pi) / m):.3g}."
        )
    low, high = max(0, math.floor(m / q - reach)), min(m, math.ceil(m / q + reach))
    sizes = low + np.arange(high - low + 1, dtype=np.float64)
    # each size's chance over that of the one before; their sum is 1 but for what lies 12 deviations away
    steps = np.log((float(m) - sizes[:-1]) / sizes[1:]) - math.log(q - 1)
    logs = np.concatenate([[0.0], np.cumsum(steps)])
    chances = np.exp(logs - logs.max())
    return float(chances @ _mean_distance(sizes) / chances.sum() * (q / m) / 2)


def _mean_distance(sizes: Array) -> Array:
    """``E |sum of j signs|`` for whole numbers j: ``2 r C(2 r, r) / 4^r`` with ``r = ceil(j / 2)``."""
    half = np.ceil(sizes / 2)
    few = np.array([2 * r * math.comb(2 * r, r) / 4**r for r in range(_FEW)])
    big = np.maximum(half, _FEW)
    series = 2 * np.sqrt(big / math.pi) * np.exp(-1 / (8 * big) + 1 / (192 * big**3) - 1 / (640 * big**5))
    return np.where(half < _FEW, few[np.minimum(half, _FEW - 1).astype(np.int64)], series)
