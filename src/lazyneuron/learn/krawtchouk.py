"""Krawtchouk polynomials: how the characters of one degree correlate at two points, given their Hamming distance."""

from __future__ import annotations

import math
import sys

import numpy as np

from lazyneuron.core.errors import ConfigError, ShapeError
from lazyneuron.learn.checks import count
from lazyneuron.ops.array import Array
from lazyneuron.ops.boolean.operators import Impl, lookup
from lazyneuron.ops.boolean.packing import pack_rows
from lazyneuron.ops.boolean.subsets import check_degree

_MOST = 10**8


def krawtchouk_table(n: int, degree: int) -> Array:
    """``Kr_t(h; n) = sum_j (-1)^j C(h, j) C(n - h, t - j)`` for t = 0..degree, h = 0..n, one row for each t.

    Args:
        n: coordinates.
        degree: the largest t.

    Returns:
        float64 of shape (degree + 1, n + 1).

    Raises:
        ConfigError: a number is out of range, or so large that the table would take long or leave floating point.
    """
    n = count(n, "n")
    degree = check_degree(n, degree)
    if (n + 1) * (degree + 1) ** 2 > _MOST or math.comb(n, degree) > sys.float_info.max:
        raise ConfigError(
            f"Krawtchouk polynomials of n = {n:.9g} and degree {degree:.9g} are too many; lower the degree."
        )
    exact = [
        [sum((-1) ** j * math.comb(h, j) * math.comb(n - h, t - j) for j in range(t + 1)) for h in range(n + 1)]
        for t in range(degree + 1)
    ]
    return np.array([[float(value) for value in row] for row in exact])


def walsh_kernel(a: Array, b: Array, *, degree: int, impl: Impl = "auto") -> Array:
    """``K_d(x, x') = sum over |T| <= d of chi_T(x) chi_T(x')`` for rows of +-1.

    Args:
        a: shape (m, n).
        b: shape (m', n).
        degree: d.
        impl: which implementation.

    Returns:
        float64 of shape (m, m').

    Raises:
        ShapeError: the rows have different lengths, or a side has other than two axes.
        ConfigError: the degree is out of range.

    Cost: ``m m' n / 64`` popcounts, whatever the number of features.
    """
    a, b = np.asarray(a), np.asarray(b)
    if a.ndim != 2 or b.ndim != 2:
        raise ShapeError(f"Rows have two axes, got {a.ndim} and {b.ndim}; reshape them.")
    if a.shape[1] != b.shape[1]:
        raise ShapeError(f"Both sides need rows of one length, got {a.shape[1]} and {b.shape[1]}.")
    return lookup(pack_rows(a), pack_rows(b), krawtchouk_table(a.shape[1], degree).sum(0), impl=impl)
