"""The definition: quantised layers and blocks, evaluated in float64 from what their bytes mean."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from lazyneuron.ops.quantised.format import Columns, Rows


def linear(x: Tensor, rows: Rows, bias: Tensor | None = None) -> Tensor:
    """``x W' + b`` of any (..., d_in), in float64."""
    return _with_bias(x.double() @ rows.dequantised(torch.float64).T, bias)


def down(hidden: Tensor, columns: Columns, bias: Tensor | None = None) -> Tensor:
    """The second layer of a block, from its hidden activations (..., d_hidden), in float64."""
    return _with_bias(hidden.double() @ columns.dequantised(torch.float64), bias)


def mlp(
    x: Tensor,
    first: tuple[Rows, Tensor | None],
    second: tuple[Columns, Tensor | None],
    *,
    activation: Callable[[Tensor], Tensor],
    up: tuple[Rows, Tensor | None] | None = None,
    rectify_up: bool = False,
) -> Tensor:
    """``down(s(first x))``, or ``down(s(first x) * up x)`` of a gated block, of any (..., d_in), in float64."""
    hidden = activation(linear(x, *first))
    if up is not None:
        other = linear(x, *up)
        hidden = hidden * (other.clamp(min=0) if rectify_up else other)
    return down(hidden, *second)


def _with_bias(y: Tensor, bias: Tensor | None) -> Tensor:
    return y if bias is None else y + bias.double()
