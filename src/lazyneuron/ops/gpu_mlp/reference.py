"""The definition, in float64 with the roundings of the model's dtype; every kernel must match it."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from lazyneuron.ops.gpu_mlp.layer import Layer
from lazyneuron.ops.quantised.format import Columns, Format, Rows

Form = Format | None  # None for kept weights


def linear(x: Tensor, layer: Layer, form: Form = None) -> Tensor:
    """``x W' + b`` of any (..., d_in), in float64."""
    rows = layer.rows
    if form is not None and layer.scale is not None:
        rows = Rows(format=form, bytes=rows, scale=layer.scale, width=x.shape[-1]).dequantised(torch.float64)
    return _with_bias(x.double() @ rows.double().T, layer.bias)


def down(hidden: Tensor, layer: Layer, form: Form = None) -> Tensor:
    """The second layer by neuron, from hidden activations (..., d_hidden), in float64."""
    rows = layer.rows
    if form is not None and layer.scale is not None:
        rows = Columns(format=form, bytes=rows, scale=layer.scale).dequantised(torch.float64)
    return _with_bias(hidden.double() @ rows.double(), layer.bias)


def hidden(
    x: Tensor,
    first: Layer,
    *,
    activation: Callable[[Tensor], Tensor],
    up: Layer | None = None,
    rectify_up: bool = False,
    form: Form = None,
) -> Tensor:
    """``s(first x)``, or ``s(first x) * up x``, in the dtype of x: each layer and each product is rounded to it.

    Args:
        x: (..., d_in).
        first: ``up``, or the gate of a gated block.
        activation: called with float64 numbers that x's dtype holds; thresholds as torch compares them.
        up: of a gated block.
        rectify_up: whether that factor is rectified too.
        form: of quantised rows.
    """
    z = linear(x, first, form).to(x.dtype).double()
    h = activation(z).to(x.dtype)
    threshold: tuple[float, ...] = getattr(activation, "parameters", ())
    if getattr(activation, "kind", "").startswith("thresholded"):  # torch compares what is rounded
        h = torch.where(h.double().abs() <= threshold[0], torch.zeros_like(h), h)
    elif getattr(activation, "kind", "") == "offset_gelu":  # torch rounds before it takes the offset off
        h = torch.where(z <= threshold[0], 0.0, F.gelu(z).to(x.dtype).double() - threshold[1]).to(x.dtype)
    if up is None:
        return h
    u = linear(x, up, form).to(x.dtype).double()
    return (h.double() * (u.clamp(min=0) if rectify_up else u)).to(x.dtype)


def mlp(
    x: Tensor,
    first: Layer,
    second: Layer,
    *,
    activation: Callable[[Tensor], Tensor],
    up: Layer | None = None,
    rectify_up: bool = False,
    form: Form = None,
) -> Tensor:
    """``down(hidden(x))`` with every neuron computed, in the dtype of x."""
    h = hidden(x, first, activation=activation, up=up, rectify_up=rectify_up, form=form)
    return down(h, second, form).to(x.dtype)


def _with_bias(y: Tensor, bias: Tensor | None) -> Tensor:
    return y if bias is None else y + bias.double()
