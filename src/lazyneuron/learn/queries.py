"""Fourier quantities of a function that can be asked for values: estimates, and all large coefficients."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Callable

import numpy as np

from lazyneuron.core.errors import DataError
from lazyneuron.learn import cube
from lazyneuron.learn.checks import correlation, positive, probability
from lazyneuron.ops.array import Array

Function = Callable[[Array], Array]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Estimate:
    """A mean over random queries.

    Attributes:
        value: the estimate.
        low, high: its interval.
        failure_probability: with which the interval misses.
        method: ``"normal"`` (asymptotic: an event too rare to be seen is not in it) or ``"empirical Bernstein"``
            (holds at any sample size).
        queries: how often the function was asked.
    """

    value: float
    low: float
    high: float
    failure_probability: float
    method: str
    queries: int


def mean_estimate(values: Array, *, delta: float, span: float | None, queries: int) -> Estimate:
    """The mean of independent values with an interval.

    Args:
        values: at least two of them.
        delta: how often the interval may miss.
        span: a bound on the range of the values; with it the interval is an empirical Bernstein one.
        queries: reported.

    Raises:
        ConfigError: delta is out of range.
        DataError: there are fewer than two values.

    Source:
        Maurer, Pontil (2009), Theorem 4, on both sides.
    """
    probability(delta, "delta")
    m = len(values)
    if m < 2:
        raise DataError(f"An estimate needs at least 2 samples, got {m}.")
    mean, variance = float(values.mean()), float(values.var(ddof=1))
    if span is None:
        half, method = statistics.NormalDist().inv_cdf(1 - delta / 2) * math.sqrt(variance / m), "normal"
    else:
        log = math.log(4 / delta)
        half = math.sqrt(2 * variance * log / m) + 7 * positive(span, "span") * log / (3 * (m - 1))
        method = "empirical Bernstein"
    return Estimate(
        value=mean, low=mean - half, high=mean + half, failure_probability=delta, method=method, queries=queries
    )


def estimate_average_sensitivity(
    f: Function, n: int, *, samples: int = 20_000, seed: int = 0, delta: float = 0.05, span: float | None = None
) -> Estimate:
    """``AS = (n / 4) E (f(x) - f(x flipped at i))^2`` over random x and i, by two queries a sample.

    ``span`` bounds the range of f's values, if that is known.
    """
    generator = np.random.default_rng(seed)
    x, flipped = cube.random_neighbours(samples, n, generator=generator)
    values = n / 4 * (f(x) - f(flipped)) ** 2
    wide = None if span is None else n / 4 * span**2
    return mean_estimate(values, delta=delta, span=wide, queries=2 * samples)


def estimate_noise_sensitivity(
    f: Function, n: int, rho: float, *, samples: int = 20_000, seed: int = 0, delta: float = 0.05
) -> Estimate:
    """``NS_rho = 1/4 E (f(x) - f(y))^2``, each bit of y a flipped bit of x with probability ``(1 - rho) / 2``.

    Raises:
        ConfigError: rho lies outside [-1, 1].
    """
    generator = np.random.default_rng(seed)
    x = cube.random_points(samples, n, seed=generator)
    y = np.where(generator.random(x.shape) < (1 - correlation(rho)) / 2, -x, x)
    return mean_estimate((f(x) - f(y)) ** 2 / 4, delta=delta, span=None, queries=2 * samples)


def estimate_influences(f: Function, n: int, *, samples: int = 2_000, seed: int = 0) -> Array:
    """``1/4 E (f(x) - f(x flipped at i))^2`` for each coordinate, by ``(n + 1) samples`` queries, shape (n,)."""
    x = cube.random_points(samples, n, seed=seed)
    at = f(x)
    out = np.empty(n)
    for i in range(n):
        flipped = x.copy()
        flipped[:, i] *= -1
        out[i] = np.mean((at - f(flipped)) ** 2) / 4
    return out


def goldreich_levin(
    f: Function, n: int, theta: float, *, samples: int = 20_000, seed: int = 0
) -> dict[tuple[int, ...], float]:
    """All coefficients of magnitude at least ``theta``, by queries; some may be missed where samples are few.

    Fixes the subset coordinate by coordinate. The weight of all T that agree with S on the first j coordinates J is
    ``E f(x, z) f(x, z') chi_S(z) chi_S(z')`` over z, z' on J; what falls below ``theta^2 / 2`` is dropped.

    Args:
        f: takes rows of +-1, shape (m, n), and returns m values.
        n: coordinates.
        theta: the threshold.
        samples: queries are ``2 samples`` for each coordinate, and ``samples`` for the coefficients at the end. Errors
            are about ``max |f|^2 / sqrt(samples)``, which must lie well below ``theta^2 / 2``.
        seed: of the queries.

    Returns:
        Subset to estimated coefficient, largest first.

    Raises:
        ConfigError: theta is not above 0.
        DataError: more than 100 000 subsets stay; theta is too small for this function or for so few samples.

    Source:
        Goldreich, Levin (1989); Kushilevitz, Mansour (1993).
    """
    positive(theta, "theta")
    generator = np.random.default_rng(seed)
    kept: list[tuple[int, ...]] = [()]
    for j in range(n):
        left = cube.random_points(samples, n, seed=generator)
        right = left.copy()
        right[:, : j + 1] = cube.random_points(samples, j + 1, seed=generator)
        product = f(left) * f(right)
        differ = (left[:, : j + 1] * right[:, : j + 1]).astype(np.float64)
        grown = kept + [(*s, j) for s in kept]
        kept = [s for s in grown if float(np.mean(product * differ[:, list(s)].prod(axis=1))) >= theta**2 / 2]
        if len(kept) > 100_000:
            raise DataError(
                f"More than 100000 subsets are still candidates; raise theta ({theta}) or samples ({samples})."
            )
    x = cube.random_points(samples, n, seed=generator)
    y = f(x)
    found = {s: float(np.mean(y * x[:, list(s)].astype(np.float64).prod(axis=1))) for s in kept}
    return dict(sorted(((s, c) for s, c in found.items() if abs(c) >= theta / 2), key=lambda pair: -abs(pair[1])))
