"""The operators on the Boolean cube: native where the kernels are built, plain numpy otherwise.

They have no gradients: what they are given are points, labels and coefficients of arrays.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from lazyneuron.core.errors import DataError, ShapeError
from lazyneuron.ops.array import Array, tensor_of
from lazyneuron.ops.boolean import reference
from lazyneuron.ops.boolean.packing import pack_rows
from lazyneuron.ops.choice import BEST, native_operators

Impl = Literal["auto", "native", "numpy"]


def operators(impl: Impl = "auto") -> Any | None:
    """The native operators, or None when plain numpy is to be used.

    Args:
        impl: ``"auto"`` takes the native ones if they are there; a named implementation is used or refused.

    Raises:
        ConfigError: the name is unknown.
        ImplUnavailable: ``"native"`` was asked for and cannot run here; the sentence says why.
    """
    return native_operators(impl, plain="numpy", fakes=_FAKES)


def _characters(bits: Tensor, degree: int, dtype: torch.dtype) -> Tensor:
    return bits.new_empty(sum(math.comb(bits.shape[0], k) for k in range(degree + 1)), dtype=dtype)


_FAKES: dict[str, Callable[..., Any]] = {
    "fwht_": lambda x, isa: x,
    "walsh_moments": lambda bits, rows, degree, isa: _characters(bits, degree, torch.int32),
    "walsh_analysis": lambda bits, y, degree, isa: _characters(bits, degree, torch.float64),
    "walsh_synthesis": lambda bits, coefficient, rows, degree, isa: coefficient.new_empty(rows),
    "walsh_gram": lambda subsets, moments, n, isa: subsets.new_empty([len(subsets)] * 2, dtype=torch.float32),
    "hamming_lookup": lambda a, b, table, isa: table.new_empty(len(a), len(b)),
    "hamming_sums": lambda rows, y, n, isa: y.new_empty(n + 1),
}


def fwht(values: Array, *, in_place: bool = False, impl: Impl = "auto") -> Array:
    """Fast Walsh-Hadamard transform along the last axis: ``out[T] = sum_x values[x] (-1)^popcount(x & T)``.

    Args:
        values: float32 or float64 (other dtypes become float64), the last axis a power of two long.
        in_place: overwrite a contiguous float array and return it.
        impl: ``"native"`` and ``"numpy"`` are used or refused, ``"auto"`` takes the faster that is there.

    Raises:
        DataError: there is something else than real numbers.
        ShapeError: the last axis is no power of two long, or an array for work in place is not contiguous floats.
        ImplUnavailable: a named implementation cannot run here.

    Cost: ``n 2^n`` additions, natively in two passes over memory up to n = 28. All implementations add in the same
        order and give the same bits.

    Example:
        >>> fwht(np.array([1.0, 1.0, 1.0, -1.0])).tolist()
        [2.0, 2.0, 2.0, -2.0]
    """
    if not isinstance(values, np.ndarray):
        try:
            values = np.asarray(values, np.float64)
        except (TypeError, ValueError, OverflowError) as error:
            raise DataError(f"Values at the points of the cube are numbers ({error}); pass an array.") from error
    if values.dtype.kind not in "biuf":
        raise DataError(f"Values at the points of the cube are real numbers, got {values.dtype}; convert them.")
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
        target = tensor_of(y, dtype=np.float64)
        return np.asarray(ops.hamming_sums(torch.from_numpy(rows), target, n, BEST).numpy())
    return reference.pair_sums(rows, y, n)
