"""The Walsh-Hadamard transform."""

from __future__ import annotations

import numpy as np
import torch

from lazyneuron.core.errors import ShapeError
from lazyneuron.ops.boolean import reference
from lazyneuron.ops.boolean.array import Array
from lazyneuron.ops.boolean.native import Impl, operators
from lazyneuron.ops.choice import BEST


def fwht(values: Array, *, in_place: bool = False, impl: Impl = "auto") -> Array:
    """Fast Walsh-Hadamard transform along the last axis: ``out[T] = sum_x values[x] (-1)^popcount(x & T)``.

    Args:
        values: float32 or float64 (other dtypes become float64), the last axis a power of two long.
        in_place: overwrite a contiguous float array and return it.
        impl: ``"native"`` and ``"numpy"`` are used or refused, ``"auto"`` takes the faster that is there.

    Raises:
        ShapeError: the last axis is no power of two long, or an array for work in place is not contiguous floats.
        ImplUnavailable: a named implementation cannot run here.

    Cost: ``n 2^n`` additions; two passes over memory natively up to n = 26 (float64).

    Example:
        >>> fwht(np.array([1.0, 1.0, 1.0, -1.0])).tolist()
        [2.0, 2.0, 2.0, -2.0]
    """
    length = values.shape[-1] if values.ndim else 0
    if length < 1 or length & (length - 1):
        raise ShapeError(f"The last axis must be a power of two long, got {length}; give the values at all 2^n points.")
    fits = values.dtype in (np.float32, np.float64)
    if in_place and not (fits and values.flags.c_contiguous and values.flags.writeable):
        raise ShapeError("Work in place takes a writeable contiguous float32 or float64 array; copy it first.")
    out = values if in_place else np.array(values, dtype=values.dtype if fits else np.float64, order="C", copy=True)
    ops = operators(impl)
    if ops is not None:
        ops.fwht_(torch.from_numpy(out), BEST)
    else:
        reference.fwht_(out)
    return out
