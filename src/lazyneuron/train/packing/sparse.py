"""The linear layers around a packed activation, computed and differentiated by what fires alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from lazyneuron.ops.fired.operators import fired_columns, fired_dots, fired_rows
from lazyneuron.ops.packing.operators import scatter_fired
from lazyneuron.train.packing.functions import check_first_order
from lazyneuron.train.packing.packed import FiredGradient, Packed, attach_gradient, attached_gradient
from lazyneuron.train.packing.source import Source


class _Up(Function):
    """A linear layer that keeps of its input where that came from, and takes what fires of a gradient that says so."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        linear: Callable[[Tensor], Tensor],
        source: Source | None,
    ) -> Tensor:
        to_x, to_weight, *_ = ctx.needs_input_grad
        kept = x if source is None else source.input
        ctx.save_for_backward(kept if to_weight else None, weight if to_x else None)
        ctx.again = None if source is None else source.again
        ctx.of_x, ctx.of_weight = (x.shape, x.dtype), (weight.shape[0], weight.dtype)
        ctx.of_bias = None if bias is None else bias.dtype
        return linear(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        check_first_order()
        (g,) = gradients
        kept, weight = ctx.saved_tensors
        fired = attached_gradient(g)
        to_x = to_weight = to_bias = None
        with torch.no_grad():
            rows = g.reshape(-1, g.shape[-1])
            if ctx.needs_input_grad[0]:
                to_x = rows @ weight.to(g.dtype) if fired is None else fired_rows(fired.bits, fired.values, weight)
                shape, dtype = ctx.of_x
                to_x = to_x.reshape(shape).to(dtype)
            if ctx.needs_input_grad[1]:
                x = kept if ctx.again is None else ctx.again(kept)
                to_weight = _to_weight(rows, x.reshape(-1, x.shape[-1]).to(g.dtype), fired, ctx.of_weight[0])
                to_weight = to_weight.to(ctx.of_weight[1])
            if ctx.needs_input_grad[2]:
                to_bias = rows.sum(0).to(ctx.of_bias)
        return to_x, to_weight, to_bias, None, None


def _to_weight(rows: Tensor, tokens: Tensor, fired: FiredGradient | None, neurons: int) -> Tensor:
    return rows.t() @ tokens if fired is None else fired_columns(fired.bits, fired.values, tokens, neurons)


def up(
    x: Tensor,
    *,
    weight: Tensor,
    bias: Tensor | None,
    linear: Callable[[Tensor], Tensor],
    source: Source | None = None,
) -> Tensor:
    """What a linear layer makes of the block's input (..., d_in): its own output.

    Args:
        x: the input.
        weight: of the layer, (neurons, d_in), with the graph that leads to its parameter.
        bias: of the layer.
        linear: the layer's own code.
        source: what to keep in place of the input; None keeps the input.
    """
    z: Tensor = _Up.apply(x, weight, bias, linear, source)  # type: ignore[no-untyped-call]
    return z


class _SparseDown(Function):
    """``down``, whose input is a sum of few rows for each token.

    The gradient that it gives is zero where nothing fires: what follows multiplies it by a slope of zero there.
    """

    @staticmethod
    def forward(ctx: Any, h: Tensor, weight: Tensor, bias: Tensor | None, packed: Packed) -> Tensor:
        y = fired_rows(packed.bits, packed.hidden_values(), weight.t().contiguous())
        ctx.form = packed.form
        ctx.save_for_backward(weight, *packed.tensors)
        return (y if bias is None else y.add_(bias)).reshape(*h.shape[:-1], weight.shape[0])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        check_first_order()
        (g,) = gradients
        weight, *tensors = ctx.saved_tensors
        packed: Packed = ctx.form.having(tensors)
        to_h = to_weight = to_bias = None
        with torch.no_grad():
            tokens = g.reshape(-1, g.shape[-1])
            if ctx.needs_input_grad[0]:
                values = fired_dots(packed.bits, tokens, weight.t().contiguous())
                to_h = attach_gradient(scatter_fired(packed.bits, values, packed.shape), packed.bits, values)
            if ctx.needs_input_grad[1]:
                to_weight = fired_columns(packed.bits, packed.hidden_values(), tokens, weight.shape[1]).t()
            if ctx.needs_input_grad[2]:
                to_bias = tokens.sum(0)
        return to_h, to_weight, to_bias, None


def sparse_down(h: Tensor, packed: Packed, *, weight: Tensor, bias: Tensor | None) -> Tensor:
    """What ``down`` makes of a hidden activation (..., neurons), from what fires alone.

    Args:
        h: the activation.
        packed: the same, packed, without dropout.
        weight: of the layer, (out, neurons).
        bias: of the layer.
    """
    y: Tensor = _SparseDown.apply(h, weight, bias, packed)  # type: ignore[no-untyped-call]
    return y
