"""The bucket operators: native where the kernels are built, plain torch and numpy otherwise, with the same results."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from lazyneuron.core.errors import DataError
from lazyneuron.ops.choice import choose

LANES = 8
_LARGEST = 2147483647.0


def native_ops(impl: str = "auto") -> Any:
    """The native operators, or None when plain Python is to do the work.

    Args:
        impl: ``"auto"`` takes native operators when they are there; ``"native"`` insists; ``"python"`` declines.

    Raises:
        ConfigError: no such implementation.
        ImplUnavailable: native operators were asked for by name and are not built here.
    """
    return choose(impl, plain="python").operators


def new_rows(*shape: int, dtype: torch.dtype, ops: Any = None) -> Tensor:
    """An uninitialised tensor for random reads: on large pages where the system offers them."""
    rows = torch.empty(*shape, dtype=dtype)
    if ops is not None:
        ops.bucket_advise(rows)
    return rows


def hash_rows(x: Tensor, w: Tensor, b: Tensor, *, hashes: int, shift: int = 0, ops: Any = None) -> Tensor:
    """``floor(x w + b) >> shift`` as int32.

    Args:
        x: (rows, features), float32 or float64.
        w: (features, padded) float64; ``padded`` is ``hashes`` rounded up to 8, and what is behind is zero.
        b: (padded,) float64.
        hashes: columns that count.
        shift: joins 2**shift neighbouring cells along each hash.
        ops: from :func:`native_ops`.

    Returns:
        (rows, hashes) int32.

    Raises:
        DataError: a value is not finite, or a bucket's number does not fit into 32 bits.
    """
    if ops is not None:
        try:
            out: Tensor = ops.bucket_hash(x.contiguous(), w, b, hashes, shift)
        except RuntimeError as error:
            raise_for_rows(error)
        return out
    v = torch.addmm(b[:hashes], x.to(torch.float64), w[:, :hashes])
    check_rows(v)
    return v.floor_().to(torch.int32) >> shift


def check_rows(v: Tensor) -> None:
    """Refuse hash values that name no bucket.

    Raises:
        DataError: as in :func:`hash_rows`.
    """
    if not bool(v.isfinite().all()):
        raise DataError("The rows hold NaN or infinity, which lie in no bucket; drop or impute them first.")
    if v.numel() and float(v.abs().max()) >= _LARGEST:
        raise DataError("A bucket's number does not fit into 32 bits; scale the data, or use wider buckets.")


def raise_for_rows(error: RuntimeError) -> None:
    """Turn what a native operator says about rows into an error of ours."""
    if "NOT_FINITE" in str(error):
        check_rows(torch.tensor([torch.nan]))
    if "BUCKET_OVERFLOW" in str(error):
        check_rows(torch.tensor([_LARGEST]))
    raise error


def accumulate_(sums: Tensor, slots: Tensor, x: Tensor, y: Tensor, *, degree: int, ops: Any = None) -> None:
    """Add each row's moments to its slot's row of sums.

    Args:
        sums: (slots, :func:`moment_width`) float64: count, y, y squared; for degree 1 also x, the upper triangle of
            x x^T row by row, and x times each output.
        slots: (rows,) int64; rows with a slot below 0 are left out.
        x: (rows, features) float64; not read for degree 0.
        y: (rows, outputs) float64.
        degree: 0 or 1.
        ops: from :func:`native_ops`.
    """
    if ops is not None:
        ops.bucket_accumulate(sums, slots.contiguous(), x.contiguous(), y.contiguous(), degree)
        return
    kept = slots >= 0
    x, y, slots = x[kept], y[kept], slots[kept]
    parts = [torch.ones(len(y), 1, dtype=torch.float64), y, y * y]
    if degree:
        above = torch.triu_indices(x.shape[1], x.shape[1])
        parts += [x, x[:, above[0]] * x[:, above[1]], (y[:, :, None] * x[:, None, :]).flatten(1)]
    sums.index_add_(0, slots, torch.cat(parts, 1))


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
    held = values[slots.clamp(min=0)].reshape(len(slots), outputs, -1)
    y = held[:, :, 0]
    if degree:
        y = y + torch.einsum("rod,rd->ro", held[:, :, 1:], x.to(torch.float64))
    return torch.where((slots >= 0)[:, None], y, 0.0)


def first_seen(vectors: Tensor) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """The different rows in the order in which they appear, and each row's number among them."""
    rows = np.ascontiguousarray(vectors.numpy())
    _, first, inverse = np.unique(rows, axis=0, return_index=True, return_inverse=True)
    order = np.argsort(first, kind="stable")
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    return rows[first[order]], rank[inverse.reshape(-1)]
