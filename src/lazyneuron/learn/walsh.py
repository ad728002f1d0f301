"""Walsh-Fourier analysis of functions given by all their values on the cube."""

from __future__ import annotations

import numpy as np
import torch

from lazyneuron.core.errors import ConfigError, ShapeError
from lazyneuron.learn.array import Array
from lazyneuron.learn.cube import bit_count
from lazyneuron.learn.native import Impl, operators
from lazyneuron.ops.choice import BEST


def fwht(values: Array, *, in_place: bool = False, impl: Impl = "auto") -> Array:
    """Fast Walsh-Hadamard transform along the last axis: ``out[T] = sum_x values[x] (-1)^popcount(x & T)``.

    Args:
        values: float32 or float64 (other dtypes become float64), the last axis a power of two long.
        in_place: overwrite a contiguous float array and return it.
        impl: ``"native"`` and ``"numpy"`` are used or refused, ``"auto"`` takes the faster that is there.

    Raises:
        ShapeError: the last axis is no power of two long, or an array for work in place is not contiguous floats.
        ImplUnavailable: a named implementation cannot run here.

    Cost: ``n 2^n`` additions; two passes over memory natively up to n = 26 (float64).

    Example:
        >>> fwht(np.array([1.0, 1.0, 1.0, -1.0])).tolist()
        [2.0, 2.0, 2.0, -2.0]
    """
    length = values.shape[-1] if values.ndim else 0
    if length < 1 or length & (length - 1):
        raise ShapeError(f"The last axis must be a power of two long, got {length}; give the values at all 2^n points.")
    fits = values.dtype in (np.float32, np.float64)
    if in_place and not (fits and values.flags.c_contiguous and values.flags.writeable):
        raise ShapeError("Work in place takes a writeable contiguous float32 or float64 array; copy it first.")
    out = values if in_place else np.array(values, dtype=values.dtype if fits else np.float64, order="C", copy=True)
    ops = operators(impl)
    if ops is not None:
        ops.fwht_(torch.from_numpy(out), BEST)
        return out
    step = 1
    while step < length:
        pairs = out.reshape(-1, length // (2 * step), 2, step)
        low = pairs[:, :, 0].copy()
        pairs[:, :, 0] += pairs[:, :, 1]
        np.subtract(low, pairs[:, :, 1], out=pairs[:, :, 1])
        step *= 2
    return out


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
    if not -1 <= rho <= 1:
        raise ConfigError(f"A correlation lies in [-1, 1], got {rho}.")
    return float(0.5 * ((1 - rho ** np.arange(len(weights))) @ weights))


def influences(coefficients: Array) -> Array:
    """``sum over T with i in T of the squared coefficient``, for each coordinate i; they add up to AS."""
    n = len(coefficients).bit_length() - 1
    squares = coefficients.astype(np.float64) ** 2
    return np.array([squares.reshape(-1, 2, 1 << i)[:, 1].sum() for i in range(n)])
