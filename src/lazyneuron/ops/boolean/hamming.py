"""Sums and tables over the Hamming distances of rows."""

from __future__ import annotations

import numpy as np
import torch

from lazyneuron.ops.boolean import reference
from lazyneuron.ops.boolean.array import Array, doubles
from lazyneuron.ops.boolean.native import Impl, operators
from lazyneuron.ops.boolean.packing import pack_rows
from lazyneuron.ops.choice import BEST


def lookup(a: Array, b: Array, table: Array, *, impl: Impl = "auto") -> Array:
    """``table[Hamming distance]`` for packed rows, shape (m, m')."""
    ops = operators(impl)
    if ops is not None:
        values = np.zeros(64 * a.shape[1] + 1)
        values[: len(table)] = table
        found = ops.hamming_lookup(torch.from_numpy(a), torch.from_numpy(b), torch.from_numpy(values), BEST)
        return np.asarray(found.numpy())
    return reference.lookup(a, b, table)


def pair_sums(x: Array, y: Array, *, impl: Impl = "auto") -> Array:
    """``sum of y_a y_b over pairs a < b at Hamming distance h`` for h = 0..n, shape (n + 1,)."""
    n, rows = x.shape[1], pack_rows(x)
    ops = operators(impl)
    if ops is not None:
        target = doubles(y)
        return np.asarray(ops.hamming_sums(torch.from_numpy(rows), target, n, BEST).numpy())
    return reference.pair_sums(rows, y, n)
