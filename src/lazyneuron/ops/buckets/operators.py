"""The bucket operators: native where the kernels are built, plain torch and numpy otherwise, with the same results."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from lazyneuron.ops.buckets import reference
from lazyneuron.ops.choice import native_operators

LANES = 8
_NEAR = 4  # tags that are looked at at once


def native_ops(impl: str = "auto") -> Any:
    """The native operators, or None when plain Python is to do the work.

    Args:
        impl: ``"auto"`` takes native operators when they are there; ``"native"`` insists; ``"python"`` declines.

    Raises:
        ConfigError: no such implementation.
        ImplUnavailable: native operators were asked for by name and are not built here.
    """
    return native_operators(impl, plain="python", fakes=_FAKES)


_FAKES: dict[str, Callable[..., Any]] = {  # bucket_insert, whose result depends on the data, has none
    "bucket_hash": lambda x, w, b, hashes, shift: x.new_empty(len(x), hashes, dtype=torch.int32),
    "bucket_find": lambda rows, index, keys, count: index.new_empty(len(rows)),
    **dict.fromkeys(
        ("bucket_rehash", "bucket_advise", "bucket_accumulate", "bucket_pack", "bucket_predict"), lambda *_: None
    ),
}


def new_rows(*shape: int, dtype: torch.dtype, ops: Any = None) -> Tensor:
    """An uninitialised tensor for random reads: on large pages where the system offers them."""
    rows = torch.empty(*shape, dtype=dtype)
    if ops is not None:
        ops.bucket_advise(rows)
    return rows


def pack(keys: Tensor, values: Tensor, *, ops: Any) -> tuple[Tensor, Tensor]:
    """Buckets as ``bucket_predict`` reads them: key, numbers and slot together, at hashed places, half of them empty.

    Args:
        keys: (at least buckets, hashes) int32.
        values: (buckets, columns) float64.
        ops: from :func:`native_ops`.

    Returns:
        Records, (places, words) int64 of whole cache lines, and tags, (places + 4,) int16.

    Cost: twice the buckets in records of ``hashes / 2 + columns + 1`` eight-byte words, rounded up to 64 bytes.
    """
    (count, columns), hashes = values.shape, keys.shape[1]
    words, places = ((hashes + 1) // 2 + columns + 1 + 7) // 8 * 8, max(2 * count, 1)
    records = new_rows(places, words, dtype=torch.int64, ops=ops)
    tags = new_rows(places + _NEAR, dtype=torch.int16, ops=ops)
    ops.bucket_pack(keys, count, values, records, tags)
    return records, tags


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
    return reference.hash_rows(x, w, b, hashes=hashes, shift=shift)


def raise_for_rows(error: RuntimeError) -> None:
    """Turn what a native operator says about rows into an error of ours."""
    if "NOT_FINITE" in str(error):
        reference.check_rows(torch.tensor([torch.nan]))
    if "BUCKET_OVERFLOW" in str(error):
        reference.check_rows(torch.tensor([reference.LARGEST]))
    raise error


def accumulate_(sums: Tensor, slots: Tensor, x: Tensor, y: Tensor, *, degree: int, ops: Any = None) -> None:
    """Add each row's moments to its slot's row of sums.

    Args:
        sums: (slots, :func:`.reference.moment_width`) float64: count, y, y squared; for degree 1 also x, the upper
            triangle of x x^T row by row, and x times each output.
        slots: (rows,) int64; rows with a slot below 0 are left out.
        x: (rows, features) float64; not read for degree 0.
        y: (rows, outputs) float64.
        degree: 0 or 1.
        ops: from :func:`native_ops`.
    """
    if ops is not None:
        ops.bucket_accumulate(sums, slots.contiguous(), x.contiguous(), y.contiguous(), degree)
    else:
        reference.accumulate_(sums, slots, x, y, degree=degree)
