"""Walsh-Fourier analysis of functions given by all their values on the cube."""

from __future__ import annotations

import numpy as np

from lazyneuron.core.errors import ConfigError
from lazyneuron.learn.checks import correlation
from lazyneuron.ops.array import Array
from lazyneuron.ops.boolean.operators import Impl, fwht
from lazyneuron.ops.boolean.packing import bit_count


def spectrum(values: Array, *, impl: Impl = "auto") -> Array:
    """Fourier coefficients of a function from its values at all points: entry T belongs to the bits of T."""
    return np.asarray(fwht(values, impl=impl) / values.shape[-1])


def weight_by_degree(coefficients: Array) -> Array:
    """``W^t``, the sum of squared coefficients of degree t, for t = 0..n; their sum is ``E f^2``."""
    degrees = bit_count(np.arange(len(coefficients)))
    return np.bincount(degrees, weights=coefficients.astype(np.float64) ** 2, minlength=len(coefficients).bit_length())


def tail(weights: Array, degree: int) -> float:
    """Weight above a degree, from :func:`weight_by_degree`.

    Raises:
        ConfigError: the degree is negative.
    """
    if degree < 0:
        raise ConfigError(f"A degree is at least 0, got {degree}.")
    return float(weights[degree + 1 :].sum())


def average_sensitivity(weights: Array) -> float:
    """``AS(f) = E 1/4 sum_i (f(x) - f(x flipped at i))^2 = sum_t t W^t``."""
    return float(np.arange(len(weights)) @ weights)


def noise_sensitivity(weights: Array, rho: float) -> float:
    """``NS_rho(f) = E 1/4 (f(x) - f(y))^2`` for rho-correlated x and y, ``= sum_t 1/2 (1 - rho^t) W^t``.

    Raises:
        ConfigError: rho lies outside [-1, 1].
    """
    return float(0.5 * ((1 - correlation(rho) ** np.arange(len(weights))) @ weights))


def influences(coefficients: Array) -> Array:
    """``sum over T with i in T of the squared coefficient``, for each coordinate i; they add up to AS."""
    n = len(coefficients).bit_length() - 1
    squares = coefficients.astype(np.float64) ** 2
    return np.array([squares.reshape(-1, 2, 1 << i)[:, 1].sum() for i in range(n)])
