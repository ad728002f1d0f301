"""Fourier quantities of a function that can be asked for values: estimates, and all large coefficients."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Callable

import numpy as np

from lazyneuron.core.arguments import described
from lazyneuron.core.errors import ConfigError, DataError, ShapeError
from lazyneuron.learn import cube
from lazyneuron.learn.checks import (
    check_points,
    correlation,
    count,
    finite_array,
    generator_of,
    positive,
    probability,
    upper,
)
from lazyneuron.ops.array import Array

Function = Callable[[Array], Array]
_LEAST = 5e-324
_LARGEST = 1e140  # squares of which variances are finite


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
    delta = probability(delta, "delta")
    m = len(values)
    if m < 2:
        raise DataError(f"An estimate needs at least 2 samples, got {m}.")
    mean, variance = float(values.mean()), float(values.var(ddof=1))
    if span is None:
        half, method = -statistics.NormalDist().inv_cdf(max(delta / 2, _LEAST)) * math.sqrt(variance / m), "normal"
    else:
        log = math.log(4) - math.log(delta)
        half = math.sqrt(2 * variance * log / m) + 7 * positive(span, "span") * log / (3 * (m - 1))
        method = "empirical Bernstein"
    return Estimate(
        value=mean, low=mean - half, high=mean + half, failure_probability=delta, method=method, queries=queries
    )


def estimate_average_sensitivity(
    f: Function, n: int, *, samples: int = 20_000, seed: int = 0, delta: float = 0.05, span: float | None = None
) -> Estimate:
    """``AS = (n / 4) E (f(x) - f(x flipped at i))^2`` over random x and i, by two queries a sample.

    Args:
        f: takes rows of +-1, int8 of shape (m, n), and returns m values.
        n: coordinates.
        samples: how many x; there are two queries for each.
        seed: of the queries, or a generator.
        delta: how often the interval may miss.
        span: a bound on the range of f's values, if that is known.

    Raises:
        ConfigError: f cannot be called, a number is out of range, or the points would not fit into memory.
        DataError, ShapeError: f does not return one finite number for each row, or their squares overflow.
    """
    n, samples, generator, delta = *_size(n, samples), generator_of(seed), probability(delta, "delta")
    wide = None if span is None else upper(lambda: n / 4 * positive(span, "span") ** 2)
    x, flipped = cube.random_neighbours(samples, n, generator=generator)
    values = n / 4 * _squares(_ask(f, x) - _ask(f, flipped))
    return mean_estimate(values, delta=delta, span=wide, queries=2 * samples)


def estimate_noise_sensitivity(
    f: Function, n: int, rho: float, *, samples: int = 20_000, seed: int = 0, delta: float = 0.05
) -> Estimate:
    """``NS_rho = 1/4 E (f(x) - f(y))^2``, each bit of y a flipped bit of x with probability ``(1 - rho) / 2``.

    Args:
        f, n, samples, seed, delta: as in :func:`estimate_average_sensitivity`.
        rho: the correlation.

    Raises:
        ConfigError: rho lies outside [-1, 1]; and as there.
        DataError, ShapeError: as there.
    """
    n, samples, generator, delta = *_size(n, samples), generator_of(seed), probability(delta, "delta")
    flips = (1 - correlation(rho)) / 2
    x = cube.random_points(samples, n, seed=generator)
    y = np.where(generator.random(x.shape) < flips, -x, x)
    return mean_estimate(_squares(_ask(f, x) - _ask(f, y)) / 4, delta=delta, span=None, queries=2 * samples)


def estimate_influences(f: Function, n: int, *, samples: int = 2_000, seed: int = 0) -> Array:
    """``1/4 E (f(x) - f(x flipped at i))^2`` for each coordinate, by ``(n + 1) samples`` queries, shape (n,).

    Args:
        f, n, samples, seed: as in :func:`estimate_average_sensitivity`.

    Raises:
        ConfigError, DataError, ShapeError: as there.
    """
    n, samples = _size(n, samples)
    x = cube.random_points(samples, n, seed=seed)
    at = _ask(f, x)
    out = np.empty(n)
    for i in range(n):
        flipped = x.copy()
        flipped[:, i] *= -1
        out[i] = np.mean(_squares(at - _ask(f, flipped))) / 4
    return out


def _size(n: int, samples: int) -> tuple[int, int]:
    bits, rows = count(n, "n"), count(samples, "The number of samples", least=2)
    check_points(rows, bits)
    return bits, rows


def _ask(f: Function, x: Array) -> Array:
    """The function's values, one finite number for each row."""
    if not callable(f):
        raise ConfigError(f"A function takes rows of +-1 and returns their values, got {described(f)}.")
    values = finite_array(f(x), "What the function returns", ndim=1)
    if len(values) != len(x):
        raise ShapeError(f"The function returns one value for each row, got {len(values)} for {len(x)} rows.")
    return values


def _squares(differences: Array) -> Array:
    with np.errstate(over="ignore"):
        squares = np.asarray(differences**2)
    if not squares.max() < _LARGEST:
        raise DataError("Squares of the function's values overflow; scale the function.")
    return squares


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
        ConfigError: f cannot be called, a number is out of range, or the points would not fit into memory.
        ShapeError: f does not return one number for each row.
        DataError: a value of f is not finite, or more than 100 000 subsets stay; theta is too small for this
            function or for so few samples.

    Source:
        Goldreich, Levin (1989); Kushilevitz, Mansour (1993).
    """
    n, samples, theta, generator = *_size(n, samples), positive(theta, "theta"), generator_of(seed)
    kept: list[tuple[int, ...]] = [()]
    for j in range(n):
        left = cube.random_points(samples, n, seed=generator)
        right = left.copy()
        right[:, : j + 1] = cube.random_points(samples, j + 1, seed=generator)
        product = _ask(f, left) * _ask(f, right)
        differ = (left[:, : j + 1] * right[:, : j + 1]).astype(np.float64)
        grown = kept + [(*s, j) for s in kept]
        kept = [s for s in grown if float(np.mean(product * differ[:, list(s)].prod(axis=1))) >= theta * theta / 2]
        if len(kept) > 100_000:
            raise DataError(
                f"More than 100000 subsets are still candidates; raise theta ({theta}) or samples ({samples})."
            )
    x = cube.random_points(samples, n, seed=generator)
    y = _ask(f, x)
    found = {s: float(np.mean(y * x[:, list(s)].astype(np.float64).prod(axis=1))) for s in kept}
    return dict(sorted(((s, c) for s, c in found.items() if abs(c) >= theta / 2), key=lambda pair: -abs(pair[1])))
