"""What the operators on the Boolean cube compute, in plain numpy; every other implementation must match it."""

from __future__ import annotations

import math

import numpy as np

from lazyneuron.ops.array import Array
from lazyneuron.ops.boolean.packing import bit_count
from lazyneuron.ops.boolean.subsets import count_subsets


def fwht_(values: Array) -> None:
    """As :func:`lazyneuron.ops.boolean.operators.fwht`, in place."""
    step, length = 1, values.shape[-1]
    while step < length:
        pairs = values.reshape(-1, length // (2 * step), 2, step)
        low = pairs[:, :, 0].copy()
        pairs[:, :, 0] += pairs[:, :, 1]
        np.subtract(low, pairs[:, :, 1], out=pairs[:, :, 1])
        step *= 2


def columns(x: Array, degree: int, *, dtype: type = np.float64) -> Array:
    """Walsh features of rows of +-1, written out: shape (m, N) in graded colex order."""
    m, n = x.shape
    out: Array = np.empty((m, count_subsets(n, degree)), dtype, order="F")
    out[:, 0] = 1
    begin, at = 0, 1
    for size in range(1, degree + 1):
        start = at
        for t in range(size - 1, n):
            below = math.comb(t, size - 1)  # the parents whose elements are all below t come first
            np.multiply(out[:, begin : begin + below], x[:, t : t + 1], out=out[:, at : at + below], casting="unsafe")
            at += below
        begin = start
    return out


def lookup(a: Array, b: Array, table: Array) -> Array:
    """As :func:`lazyneuron.ops.boolean.operators.lookup`."""
    out = np.empty((len(a), len(b)))
    for i, row in enumerate(a):
        out[i] = table[bit_count(row ^ b).sum(axis=1)]
    return out


def pair_sums(rows: Array, y: Array, n: int) -> Array:
    """As :func:`lazyneuron.ops.boolean.operators.pair_sums`, of packed rows."""
    out = np.zeros(n + 1)
    for i in range(len(rows) - 1):
        distance = bit_count(rows[i] ^ rows[i + 1 :]).sum(axis=1)
        out += y[i] * np.bincount(distance, weights=y[i + 1 :], minlength=n + 1)
    return out
