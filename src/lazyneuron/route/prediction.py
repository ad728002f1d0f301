"""Prediction: the polynomial of the finest known bucket of each row, averaged over tables."""

from __future__ import annotations

import torch
from torch import Tensor

from lazyneuron.ops.buckets.operators import native_ops, raise_for_rows
from lazyneuron.ops.buckets.reference import check_finite, evaluate
from lazyneuron.route.pyramid import Pyramid, Scale

CHUNK = 1 << 16


def predict(
    x: Tensor, tables: list[tuple[Pyramid, list[Scale]]], *, facts: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """The mean over tables of each row's bucket.

    Args:
        x: (rows, features).
        tables: each table, with its scales from the single bucket to the finest in use.
        facts: also tell what the predictions rest on.

    Returns:
        (rows, outputs), and with facts the rows in the bucket (rows,) and their root mean square residual (rows,
        outputs), both without rows otherwise.
    """
    n, o, count = len(x), tables[0][0].frame.outputs, len(tables)
    y = torch.zeros(n, o, dtype=torch.float64)
    counts = torch.zeros(n if facts else 0, dtype=torch.float64)
    squares = torch.zeros(n if facts else 0, o, dtype=torch.float64)
    for a in range(0, n, CHUNK):
        rows = x[a : a + CHUNK].contiguous()
        for pyramid, ladder in tables:
            part, where = _finest(rows, pyramid, ladder)
            y[a : a + CHUNK] += part / count if count > 1 else part
            for level, at, slots in where if facts else ():
                counts[a + at] += level.counts[slots] / count
                squares[a + at] += level.spread[slots].square() / count
    return y, counts, squares.sqrt()


def _finest(x: Tensor, pyramid: Pyramid, ladder: list[Scale]) -> tuple[Tensor, list[tuple[Scale, Tensor, Tensor]]]:
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
    check_finite(rows)
    return y, where


def _at(x: Tensor, pyramid: Pyramid, level: Scale, ops: object) -> tuple[Tensor, Tensor]:
    frame, affine = pyramid.frame, pyramid.affine
    if level.table is None or level.shift is None:
        slots = torch.where(x.isfinite().all(1), 0, -1)
        return evaluate(x, slots, level.values, outputs=frame.outputs, degree=frame.degree), slots
    if ops is None or level.packed is None:
        slots = level.table.find(affine.vectors(x, shift=level.shift, impl=pyramid.impl))
        return evaluate(x, slots, level.values, outputs=frame.outputs, degree=frame.degree), slots
    y = torch.empty(len(x), frame.outputs, dtype=torch.float64)
    slots = torch.empty(len(x), dtype=torch.int64)
    call, sizes = ops.bucket_predict, (frame.outputs, frame.degree)  # type: ignore[attr-defined]
    try:
        call(x, affine.w, affine.b, affine.hashes, level.shift, *level.packed, *sizes, y, slots)
    except RuntimeError as error:
        raise_for_rows(error)
    return y, slots
