"""Products with what fires: by the native operators where they can run, else by the definition."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor

from lazyneuron.ops.choice import level_of, with_fakes
from lazyneuron.ops.fired import reference

PLAIN = "torch"
STEP = 16  # features; the kernels take rows of a multiple of these
MOST = 32768


@functools.cache
def operators() -> Any:
    """The native operators ``fired_rows``, ``fired_columns`` and ``fired_dots``, with fakes for compilers.

    Raises:
        ImplUnavailable: the kernels are not built here, with the reason.
    """
    return with_fakes({"fired_rows": _fake_rows, "fired_columns": _fake_columns, "fired_dots": _fake_dots})


def _fake_rows(bits: Tensor, values: Tensor, rows: Tensor, isa: int = -1) -> Tensor:
    return rows.new_empty((bits.shape[0], rows.shape[1]))


def _fake_columns(bits: Tensor, values: Tensor, dense: Tensor, neurons: int, isa: int = -1) -> Tensor:
    return dense.new_empty((neurons, dense.shape[1]))


def _fake_dots(bits: Tensor, dense: Tensor, rows: Tensor, isa: int = -1) -> Tensor:
    return dense.new_empty((torch.library.get_ctx().new_dynamic_size(),))


def fired_rows(bits: Tensor, values: Tensor, rows: Tensor, *, impl: str = "auto") -> Tensor:
    """As :func:`lazyneuron.ops.fired.reference.fired_rows`, by the kernels for float32 on the CPU.

    Args:
        bits, values, rows: as there.
        impl: ``"auto"``, ``"native"``, ``"torch"`` or a kernel level.

    Raises:
        ShapeError, RuntimeError: the arguments do not fit.
        ImplUnavailable: the named implementation cannot run here.

    Cost: two FLOPs for each feature of each pair that fires.
    """
    isa = _native(rows, impl)
    if isa is None:
        return reference.fired_rows(bits, values, rows)
    out: Tensor = operators().fired_rows(bits, values, rows.contiguous(), isa)
    return out


def fired_columns(bits: Tensor, values: Tensor, dense: Tensor, neurons: int, *, impl: str = "auto") -> Tensor:
    """As :func:`lazyneuron.ops.fired.reference.fired_columns`, by the kernels for float32 on the CPU.

    Args, Raises, Cost: as for :func:`fired_rows`.
    """
    isa = _native(dense, impl)
    if isa is None:
        return reference.fired_columns(bits, values, dense, neurons)
    out: Tensor = operators().fired_columns(bits, values, dense.contiguous(), neurons, isa)
    return out


def fired_dots(bits: Tensor, dense: Tensor, rows: Tensor, *, impl: str = "auto") -> Tensor:
    """As :func:`lazyneuron.ops.fired.reference.fired_dots`, by the kernels for float32 on the CPU.

    Args, Raises, Cost: as for :func:`fired_rows`.
    """
    isa = _native(dense, impl)
    if isa is None:
        return reference.fired_dots(bits, dense, rows)
    out: Tensor = operators().fired_dots(bits, dense.contiguous(), rows.contiguous(), isa)
    return out


def has_kernel(dtype: torch.dtype, device: torch.device, *widths: int) -> bool:
    """Do the kernels take numbers of this kind, in rows of these widths?"""
    fits = all(width >= STEP and width % STEP == 0 and width <= MOST for width in widths)
    return dtype == torch.float32 and device.type == "cpu" and fits


def _native(x: Tensor, impl: str) -> int | None:
    """The kernel level, or None for the definition."""
    fits = x.dim() == 2 and has_kernel(x.dtype, x.device, x.shape[1])
    return level_of(impl, plain=PLAIN, fits=fits, refusal=lambda: _refusal(x))


def _refusal(x: Tensor) -> str:
    return (
        f"The kernels take float32 rows of a multiple of {STEP} features on the CPU, got {tuple(x.shape)} of {x.dtype} "
        f"on {x.device}; use impl='torch'."
    )
