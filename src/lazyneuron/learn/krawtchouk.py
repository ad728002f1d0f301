"""Krawtchouk polynomials: how the characters of one degree correlate at two points, given their Hamming distance."""

from __future__ import annotations

import math

import numpy as np
import torch

from lazyneuron.core.errors import ShapeError
from lazyneuron.learn.array import Array, doubles
from lazyneuron.learn.cube import bit_count
from lazyneuron.learn.native import Impl, operators
from lazyneuron.learn.packing import pack_rows
from lazyneuron.learn.subsets import check_degree
from lazyneuron.ops.choice import BEST


def krawtchouk_table(n: int, degree: int) -> Array:
    """``Kr_t(h; n) = sum_j (-1)^j C(h, j) C(n - h, t - j)`` for t = 0..degree, h = 0..n, one row for each t."""
    check_degree(n, degree)
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
        ShapeError: the rows have different lengths.

    Cost: ``m m' n / 64`` popcounts, whatever the number of features.
    """
    if a.shape[1] != b.shape[1]:
        raise ShapeError(f"Both sides need rows of one length, got {a.shape[1]} and {b.shape[1]}.")
    return lookup(pack_rows(a), pack_rows(b), krawtchouk_table(a.shape[1], degree).sum(0), impl=impl)


def lookup(a: Array, b: Array, table: Array, *, impl: Impl = "auto") -> Array:
    """``table[Hamming distance]`` for packed rows, shape (m, m')."""
    ops = operators(impl)
    if ops is not None:
        values = np.zeros(64 * a.shape[1] + 1)
        values[: len(table)] = table
        found = ops.hamming_lookup(torch.from_numpy(a), torch.from_numpy(b), torch.from_numpy(values), BEST)
        return np.asarray(found.numpy())
    out = np.empty((len(a), len(b)))
    for i, row in enumerate(a):
        out[i] = table[bit_count(row ^ b).sum(axis=1)]
    return out


def pair_sums(x: Array, y: Array, *, impl: Impl = "auto") -> Array:
    """``sum of y_a y_b over pairs a < b at Hamming distance h`` for h = 0..n, shape (n + 1,)."""
    n, rows = x.shape[1], pack_rows(x)
    ops = operators(impl)
    if ops is not None:
        target = doubles(y)
        return np.asarray(ops.hamming_sums(torch.from_numpy(rows), target, n, BEST).numpy())
    out = np.zeros(n + 1)
    for i in range(len(rows) - 1):
        distance = bit_count(rows[i] ^ rows[i + 1 :]).sum(axis=1)
        out += y[i] * np.bincount(distance, weights=y[i + 1 :], minlength=n + 1)
    return out
