"""A block on quantised rows by the kernels of GPUs: the same bytes as on a CPU, and x as it is."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from lazyneuron.accelerate.gpu.packing import overflow_limit
from lazyneuron.blocks.activation import Activation
from lazyneuron.ops.gpu_mlp import operators
from lazyneuron.ops.gpu_mlp.layer import Layer
from lazyneuron.ops.quantised.format import Format, Rows

Part = tuple[Tensor, Tensor, Tensor | None]  # rows, scales and bias
_PIECE = 1024  # rows that are decoded at once


Operator = Callable[..., Tensor]


@torch.no_grad()
def limit_of(up: Part, form: Format, width: int, dtype: torch.dtype) -> float:
    """The squared norm of a token up to which no product of these rows overflows in ``dtype``; waits for the device."""
    rows, scale, bias = up
    limits = [
        overflow_limit(
            Rows(format=form, bytes=rows[piece], scale=scale[piece], width=width).dequantised(),
            None if bias is None else bias[piece],
            dtype,
        )
        for piece in (slice(k, k + _PIECE) for k in range(0, len(rows), _PIECE))
    ]
    return min(limits, default=float("inf"))


def run(
    operator: Operator,
    x: Tensor,
    first: Part,
    up: Part | None,
    down: Part,
    *,
    activation: Activation,
    rectify_up: bool,
    form: Format,
    limit: float,
    counts: Tensor,
) -> Tensor:
    """The block's output, (..., d_out): rows of neurons that fire for none of 16 tokens side by side are not read."""
    made = operators.block_arguments(
        _layer(first),
        _layer(down),
        activation=activation.compared(x.dtype),
        counts=counts,
        up=None if up is None else _layer(up),
        rectify_up=rectify_up,
        form=form,
        limit=limit,
    )
    return operator(x, *made)


def _layer(part: Part) -> Layer:
    rows, scale, bias = part
    return Layer(rows=rows, scale=scale, bias=bias)
