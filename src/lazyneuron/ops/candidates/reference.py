"""The definition: intervals of all products from the sketch, in float64."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lazyneuron.ops.sparse_mlp.sketch import Sketch

_MERGING = 2.0**-100  # what is closer may become equal where small numbers are flushed or scaled
_LARGEST = {torch.float16: 2.0**15}  # of a lower end from which on anything may be infinite
_RELATIVE = 2.0**-21  # float32 numbers that are closer may become equal when they are scaled


def candidates(x: Tensor, sketch: Sketch, k: int) -> Tensor:
    """Rows whose upper end, rounded to the dtype of ``x``, is not below the k-th largest lower end, rounded too.

    Args:
        x: (..., d_in); its dtype is that of the products.
        sketch: of the matrix.
        k: from 1 to the number of rows.

    Returns:
        uint8 (rows,): 1 where the row may be among the k largest of some token, ties included.
    """
    numbers = sketch.certificate[:, : sketch.d_hidden].double()
    scale, bias, slack, _, absolute, limit = numbers
    wide = x.reshape(-1, sketch.d_in).double()
    middle = wide @ (scale[:, None] * sketch.quantised_rows().double()).T + bias
    norm = wide.norm(dim=1, keepdim=True)
    reach = norm * slack + absolute
    within = norm <= limit  # false for NaN
    upper = torch.where(within, middle + reach, math.inf)
    lower = torch.where(within, middle - reach, -math.inf)
    wanted = torch.zeros(sketch.d_hidden, dtype=torch.uint8)
    for top, ends in zip(upper, lower, strict=True):
        wanted |= (~(top < edge(float(ends.topk(k).values[-1]), x.dtype))).to(torch.uint8)
    return wanted


def edge(lower: float, dtype: torch.dtype) -> float:
    """What is below this is, as a number of ``dtype``, certainly less than ``lower``."""
    if not abs(lower) < _LARGEST.get(dtype, 2.0**100):
        return -math.inf
    if dtype == torch.float32:
        return lower - abs(lower) * _RELATIVE - _MERGING
    value = torch.tensor(lower, dtype=torch.float64).to(dtype)
    before = torch.nextafter(value, torch.tensor(-math.inf, dtype=dtype))
    return (float(value) + float(before)) / 2 - _MERGING
