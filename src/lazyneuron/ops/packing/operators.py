"""What fires as bits and values: by the native operators where they can run, else by the definition."""

from __future__ import annotations

import functools
import math
from typing import Any

import torch
from torch import Tensor

from lazyneuron.ops.choice import level_of, with_fakes
from lazyneuron.ops.packing import reference
from lazyneuron.ops.sparse_mlp.packed import DTYPES, ZeroSet

PLAIN = "torch"


@functools.cache
def operators() -> Any:
    """The native operators ``mark_fired``, ``gather_fired`` and ``scatter_fired``, with fakes for compilers.

    Raises:
        ImplUnavailable: the kernels are not built here, with the reason.
    """
    return with_fakes({"mark_fired": _fake_mark, "gather_fired": _fake_gather, "scatter_fired": _fake_scatter})


def _fake_mark(z: Tensor, factor: Tensor | None, left: float, low: float, high: float, isa: int = -1) -> Tensor:
    return z.new_empty((z.shape[0], (z.shape[1] + 7) // 8), dtype=torch.uint8)


def _fake_gather(dense: Tensor, bits: Tensor, isa: int = -1) -> Tensor:
    return dense.new_empty((torch.library.get_ctx().new_dynamic_size(),))


def _fake_scatter(bits: Tensor, values: Tensor, width: int, isa: int = -1) -> Tensor:
    return values.new_empty((bits.shape[0], width))


def mark_fired(z: Tensor, zero: ZeroSet, *, factor: Tensor | None = None, impl: str = "auto") -> Tensor:
    """Which pre-activations lie outside the interval where an activation is zero; NaN does.

    Args:
        z: (..., neurons), of any floating dtype on any device; the kernels take float32, bfloat16 and float16.
        zero: the interval, which has to lie in that where the slope is zero too.
        factor: of the same shape; what is kept is also above 0 there, or NaN, as the rectified ``up`` of a gated block.
        impl: ``"auto"``, ``"native"``, ``"torch"`` or a kernel level.

    Returns:
        uint8 (tokens, ceil(neurons / 8)), as :func:`lazyneuron.ops.packing.reference.mark_fired` says.

    Raises:
        ImplUnavailable: the named implementation cannot run here.
    """
    native = _native(z, impl)
    ends = _ends(zero.left, zero.low, zero.high)
    rows, others = _rows(z), None if factor is None else _rows(factor)
    if native is None:
        return reference.mark_fired(rows, others, *ends)
    bits: Tensor = operators().mark_fired(rows, others, *ends, native)
    return bits


def gather_fired(dense: Tensor, bits: Tensor, *, impl: str = "auto") -> Tensor:
    """The kept numbers of (..., neurons), token by token: (kept,).

    Raises:
        ShapeError, RuntimeError: the bits are those of another shape.
        ImplUnavailable: the named implementation cannot run here.
    """
    native = _native(dense, impl)
    if native is None:
        return reference.gather_fired(_rows(dense), bits)
    values: Tensor = operators().gather_fired(_rows(dense), bits, native)
    return values


def scatter_fired(bits: Tensor, values: Tensor, shape: tuple[int, ...], *, impl: str = "auto") -> Tensor:
    """The tensor of this shape that has the values where the bits say so, and zeros elsewhere.

    Raises:
        ShapeError, RuntimeError: bits and values do not fit.
        ImplUnavailable: the named implementation cannot run here.
    """
    native = _native(values, impl)
    if native is None:
        return reference.scatter_fired(bits, values, shape[-1]).reshape(shape)
    dense: Tensor = operators().scatter_fired(bits, values, shape[-1], native)
    return dense.reshape(shape)


def _native(x: Tensor, impl: str) -> int | None:
    """The kernel level, or None for the definition."""
    fits = x.device.type == "cpu" and x.dtype in DTYPES
    return level_of(impl, plain=PLAIN, fits=fits, refusal=lambda: _refusal(x))


def _refusal(x: Tensor) -> str:
    return f"The kernels take float32, bfloat16 and float16 on the CPU, got {x.dtype} on {x.device}; use impl='torch'."


def _rows(x: Tensor) -> Tensor:
    rows = x.detach() if x.requires_grad else x  # gradients that torch batches cannot be detached
    return rows.reshape(math.prod(x.shape[:-1]), x.shape[-1]).contiguous()


@functools.lru_cache(maxsize=256)
def _ends(left: float, low: float, high: float) -> tuple[float, float, float]:
    """The ends as float32 numbers, never moved outwards."""
    return -_up(-left), _up(low) if low <= high else math.inf, -_up(-high) if low <= high else -math.inf


def _up(bound: float) -> float:
    value = torch.tensor(bound, dtype=torch.float64).float()
    rounded = float(value)
    return rounded if rounded >= bound else float(torch.nextafter(value, torch.tensor(math.inf)))
