"""Prediction from a pyramid: the finest known bucket of each row, and what it says."""

from __future__ import annotations

import torch
from torch import Tensor

from lazyneuron.core.errors import DataError
from lazyneuron.ops.buckets.operators import native_ops, raise_for_rows
from lazyneuron.ops.buckets.reference import evaluate
from lazyneuron.route.pyramid import Pyramid, Scale


def look_up(x: Tensor, pyramid: Pyramid, ladder: list[Scale]) -> tuple[Tensor, list[tuple[Scale, Tensor, Tensor]]]:
    """Each row's value at the finest scale of the ladder on which its bucket is known.

    Args:
        x: (rows, features) contiguous.
        pyramid: for hash and frame.
        ladder: coarsest first; the first one knows every row.

    Returns:
        (rows, outputs), and for each scale that answered the rows and their slots.
    """
    frame, ops = pyramid.frame, native_ops(pyramid.impl)
    y = torch.zeros(len(x), frame.outputs, dtype=torch.float64)
    left, rows, where = torch.arange(len(x)), x, []
    for level in reversed(ladder):
        whole = len(left) == len(x)
        values, slots = _at(rows, pyramid, level, ops)
        known = slots >= 0
        if whole and bool(known.all()):
            return values, [(level, left, slots)]
        y[left[known]] = values[known]
        where.append((level, left[known], slots[known]))
        left, rows = left[~known], rows[~known]
        if not len(left):
            break
    if len(left):
        raise DataError("The rows hold NaN or infinity, which lie in no bucket; drop or impute them first.")
    return y, where


def _at(x: Tensor, pyramid: Pyramid, level: Scale, ops: object) -> tuple[Tensor, Tensor]:
    frame, affine = pyramid.frame, pyramid.affine
    if level.table is None or level.shift is None:
        slots = torch.where(x.isfinite().all(1), 0, -1)
        return evaluate(x, slots, level.values, outputs=frame.outputs, degree=frame.degree), slots
    fused = level.table.native
    if ops is None or fused is None:
        slots = level.table.find(affine.vectors(x, shift=level.shift, impl=pyramid.impl))
        return evaluate(x, slots, level.values, outputs=frame.outputs, degree=frame.degree), slots
    y = torch.empty(len(x), frame.outputs, dtype=torch.float64)
    slots = torch.empty(len(x), dtype=torch.int64)
    call, sizes = ops.bucket_predict, (frame.outputs, frame.degree)  # type: ignore[attr-defined]
    try:
        call(x, affine.w, affine.b, level.shift, *fused, len(level.table), level.values, *sizes, y, slots)
    except RuntimeError as error:
        raise_for_rows(error)
    return y, slots
