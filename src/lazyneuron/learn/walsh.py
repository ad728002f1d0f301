"""Walsh-Fourier analysis of functions given by all their values on the cube."""

from __future__ import annotations

import numpy as np

from lazyneuron.core.errors import DataError, ShapeError
from lazyneuron.learn.checks import correlation, count, finite_array
from lazyneuron.ops.array import Array
from lazyneuron.ops.boolean.operators import Impl, fwht
from lazyneuron.ops.boolean.packing import bit_count

_LARGEST = 1e150  # of what is squared


def spectrum(values: Array, *, impl: Impl = "auto") -> Array:
    """Fourier coefficients of a function from its values at all points: entry T belongs to the bits of T.

    Args:
        values: of shape (..., 2^n), in the order of :mod:`lazyneuron.learn.cube`.
        impl: as in :func:`fwht`.

    Raises:
        ShapeError: the last axis is no power of two long.
        DataError: there is something else than numbers.
    """
    return np.asarray(fwht(values, impl=impl) / np.shape(values)[-1])


def weight_by_degree(coefficients: Array) -> Array:
    """``W^t``, the sum of squared coefficients of degree t, for t = 0..n; their sum is ``E f^2``.

    Args:
        coefficients: from :func:`spectrum`, shape (2^n,).

    Raises:
        ShapeError: they are no row a power of two long.
        DataError: one is not finite, or its square overflows.
    """
    squares = _squares(coefficients)
    degrees = bit_count(np.arange(len(squares)))
    return np.bincount(degrees, weights=squares, minlength=len(squares).bit_length())


def tail(weights: Array, degree: int) -> float:
    """Weight above a degree, from :func:`weight_by_degree`.

    Raises:
        ConfigError: the degree is no whole number from 0.
        ShapeError, DataError: the weights are no row of finite numbers.
    """
    return float(_weights(weights)[count(degree, "A degree", least=0) + 1 :].sum())


def average_sensitivity(weights: Array) -> float:
    """``AS(f) = E 1/4 sum_i (f(x) - f(x flipped at i))^2 = sum_t t W^t``, from :func:`weight_by_degree`.

    Raises:
        ShapeError, DataError: the weights are no row of finite numbers.
    """
    found = _weights(weights)
    return float(np.arange(len(found)) @ found)


def noise_sensitivity(weights: Array, rho: float) -> float:
    """``NS_rho(f) = E 1/4 (f(x) - f(y))^2`` for rho-correlated x and y, ``= sum_t 1/2 (1 - rho^t) W^t``.

    Raises:
        ConfigError: rho lies outside [-1, 1].
        ShapeError, DataError: the weights are no row of finite numbers.
    """
    found = _weights(weights)
    return float(0.5 * ((1 - correlation(rho) ** np.arange(len(found))) @ found))


def influences(coefficients: Array) -> Array:
    """``sum over T with i in T of the squared coefficient``, for each coordinate i, shape (n,); they add up to AS.

    Args:
        coefficients: from :func:`spectrum`, shape (2^n,).

    Raises:
        ShapeError: they are no row a power of two long.
        DataError: one is not finite, or its square overflows.
    """
    squares = _squares(coefficients)
    n = len(squares).bit_length() - 1
    return np.array([squares.reshape(-1, 2, 1 << i)[:, 1].sum() for i in range(n)])


def _weights(weights: object) -> Array:
    return finite_array(weights, "weights", ndim=1)


def _squares(coefficients: object) -> Array:
    given = finite_array(coefficients, "coefficients", ndim=1)
    if not len(given) or len(given) & (len(given) - 1):
        raise ShapeError(f"Coefficients are those of all 2^n subsets, got {len(given)} of them.")
    if np.abs(given).max() > _LARGEST:
        raise DataError(f"Squares of coefficients overflow, the largest is {np.abs(given).max():.3g}; scale them.")
    return given**2
