"""The native CPU implementation (csrc/), called through torch's operator registry."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from lazyneuron.ops.choice import with_fakes
from lazyneuron.ops.sparse_mlp.packed import KERNEL_ACTIVATIONS, PackedBlock


@functools.cache
def op() -> Callable[..., Tensor]:
    """The registered operator; its fake implementation is registered on first use.

    Raises:
        ImplUnavailable: the kernels are not built here, with the reason.
    """
    call: Callable[..., Tensor] = with_fakes({"sparse_mlp": _fake}).sparse_mlp.default
    return call


def _fake(x: Tensor, sketch: Tensor, certificate: Tensor, first_rows: Tensor, *rest: Any) -> Tensor:
    _, _, _, down_rows, *_ = rest
    return x.new_empty((*x.shape[:-1], down_rows.shape[1]))


def new_counts() -> Tensor:
    """Four zeros that calls add to: pairs computed, pairs fired, tokens, calls."""
    return torch.zeros(4, dtype=torch.int64)


def arguments(packed: PackedBlock, counts: Tensor, *, planes: int, isa: int = -1) -> tuple[object, ...]:
    """Everything that the operator takes after ``x``, made once for a block.

    Args:
        packed: the block.
        counts: from :func:`new_counts`.
        planes: int8 planes of x in the sketch product: 2 decides more, 1 costs less when compute rules.
        isa: index in :data:`lazyneuron.ops.native.build.ISA_LEVELS`, or -1 for the best that this processor runs.
    """
    zero, act = packed.zero, packed.compared
    first, second = (*act.parameters, 0.0, 0.0)[:2]
    return (
        packed.sketch.panels,
        packed.sketch.certificate,
        packed.first_rows,
        packed.up_rows,
        packed.up_bias,
        packed.rectifies_up,
        packed.down_rows,
        packed.down_bias,
        counts,
        KERNEL_ACTIVATIONS.index(act.kind),
        float(first),
        float(second),
        zero.left,
        zero.low,
        zero.high,
        planes,
        isa,
    )


def sparse_mlp(
    packed: PackedBlock, x: Tensor, *, planes: int = 2, isa: int = -1, counts: Tensor | None = None
) -> Tensor:
    """``down(s(up x))``, with neurons that are proved silent skipped.

    Args:
        packed: the block.
        x: (..., d_in) on the CPU in the block's dtype, any strides.
        planes: 1 or 2.
        isa: as for :func:`arguments`.
        counts: int64 (4,) that the call adds to.

    Returns:
        (..., d_out), equal to the reference up to the rounding of sums in fp32.

    Raises:
        ImplUnavailable: the kernels are not built here.
        RuntimeError: shapes or dtypes that do not fit.

    Cost:
        Bytes for one token: ``d_hidden d_in (1 + itemsize c) + d_hidden d_out itemsize a``, with c the computed and a
        the firing share.
    """
    return op()(x, *arguments(packed, new_counts() if counts is None else counts, planes=planes, isa=isa))
