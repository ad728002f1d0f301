"""What the bucket operators compute, in plain torch and numpy; every other implementation must match it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from lazyneuron.core.errors import DataError

LARGEST = 2147483647.0


def hash_rows(x: Tensor, w: Tensor, b: Tensor, *, hashes: int, shift: int = 0) -> Tensor:
    """As :func:`lazyneuron.ops.buckets.operators.hash_rows`."""
    v = torch.addmm(b[:hashes], x.to(torch.float64), w[:, :hashes])
    check_rows(v)
    return v.floor_().to(torch.int32) >> shift


def accumulate_(sums: Tensor, slots: Tensor, x: Tensor, y: Tensor, *, degree: int) -> None:
    """As :func:`lazyneuron.ops.buckets.operators.accumulate_`."""
    kept = slots >= 0
    x, y, slots = x[kept], y[kept], slots[kept]
    parts = [torch.ones(len(y), 1, dtype=torch.float64), y, y * y]
    if degree:
        above = torch.triu_indices(x.shape[1], x.shape[1])
        parts += [x, x[:, above[0]] * x[:, above[1]], (y[:, :, None] * x[:, None, :]).flatten(1)]
    sums.index_add_(0, slots, torch.cat(parts, 1))


def check_rows(v: Tensor) -> None:
    """Refuse hash values that name no bucket.

    Raises:
        DataError: as in :func:`lazyneuron.ops.buckets.operators.hash_rows`.
    """
    check_finite(v)
    if v.numel() and float(v.abs().max()) >= LARGEST:
        raise DataError("A bucket's number does not fit into 32 bits; scale the data, or use wider buckets.")


def check_finite(rows: Tensor) -> None:
    """Refuse rows that lie in no bucket.

    Raises:
        DataError: a value is NaN or infinite.
    """
    if not bool(rows.isfinite().all()):
        raise DataError("The rows hold NaN or infinity, which lie in no bucket; drop or impute them first.")


def moment_width(features: int, outputs: int, *, degree: int) -> int:
    """Numbers that one slot's moments take."""
    linear = features + features * (features + 1) // 2 + outputs * features
    return 1 + 2 * outputs + (linear if degree else 0)


def evaluate(x: Tensor, slots: Tensor, values: Tensor, *, outputs: int, degree: int) -> Tensor:
    """Each row's polynomial at the row; zero where the slot is below 0.

    Args:
        x: (rows, features).
        slots: (rows,) int64.
        values: (slots, outputs * (1 + degree * features)) float64.
        outputs: columns of the result.
        degree: 0 or 1.

    Returns:
        (rows, outputs) float64.
    """
    chosen = values[slots.clamp(min=0)].reshape(len(slots), outputs, -1)
    y = chosen[:, :, 0]
    if degree:
        y = y + torch.einsum("rod,rd->ro", chosen[:, :, 1:], x.to(torch.float64))
    return torch.where((slots >= 0)[:, None], y, 0.0)


def first_seen(vectors: Tensor) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """The different rows in the order in which they appear, and each row's number among them."""
    rows = np.ascontiguousarray(vectors.numpy())
    _, first, inverse = np.unique(rows, axis=0, return_index=True, return_inverse=True)
    order = np.argsort(first, kind="stable")
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    return rows[first[order]], rank[inverse.reshape(-1)]
