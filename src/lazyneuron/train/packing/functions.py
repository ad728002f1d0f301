"""Activation, dropout and `down` with gradients from what fires alone; each equals torch's own to rounding."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from lazyneuron.blocks.interval import ZeroInterval
from lazyneuron.core.errors import ConfigError
from lazyneuron.ops.packing.operators import gather_fired, mark_fired, scatter_fired
from lazyneuron.train.packing.packed import (
    ITSELF,
    Kept,
    Packed,
    Rule,
    attach,
    attach_gradient,
    attached_gradient,
    pack,
)

_NOT_KEPT = ZeroInterval(0.0)


def check_first_order() -> None:
    """Refuse a backward pass with ``create_graph=True``, which torch runs with gradients enabled.

    What it computed would have no way back to the activations, so torch would take it for constant: a Hessian of zeros.

    Raises:
        ConfigError: it is one.
    """
    if torch.is_grad_enabled():
        raise ConfigError(
            "Packed activations have no gradients of gradients; restore the model with the receipt of "
            "pack_activations_ where these are wanted."
        )


class _Activate(Function):
    """``s(z)``, or ``s(z) * u`` of a gated block."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, u: Tensor | None, function: Callable[[Tensor], Tensor], rule: Rule) -> Any:
        h = function(z)
        if u is not None:
            h = h * (u.relu() if rule.rectifies_up else u)
        packed = pack(rule, z, u)
        ctx.form = packed.form
        ctx.save_for_backward(*packed.tensors)
        ctx.mark_non_differentiable(*(t for t in packed.tensors if t is not None))
        ctx.set_materialize_grads(False)
        return (h, *packed.tensors)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> Any:
        check_first_order()
        given = gradients[0]
        if given is None:
            return None, None, None, None
        packed: Packed = ctx.form.having(ctx.saved_tensors)
        with torch.no_grad():
            values, u = packed.values, packed.factors
            known = attached_gradient(given)
            if known is not None and known.bits.data_ptr() == packed.bits.data_ptr():
                g = known.values
            else:
                known, g = None, gather_fired(given.to(values.dtype), packed.bits)
            along = packed.rule.times_slope(g if u is None else g * u, values)
            to_z = _spread(packed, along, carried=known is not None)
            to_u = None if u is None else _spread(packed, g * packed.rule.value(values), carried=known is not None)
        return to_z, to_u, None, None


def _spread(packed: Packed, values: Tensor, *, carried: bool) -> Tensor:
    """A gradient that is zero where nothing fires; a sparse step hands its values on."""
    dense = scatter_fired(packed.bits, values, packed.shape)
    return attach_gradient(dense, packed.bits, values) if carried else dense


def activate(
    function: Callable[[Tensor], Tensor], rule: Rule, z: Tensor, u: Tensor | None = None, *, watched: bool = False
) -> Tensor:
    """The hidden activation (..., neurons), which carries its packed form.

    Args:
        function: the activation, as the model has it.
        rule: the same as a fact.
        z: pre-activations.
        u: what a gated block multiplies by, before it is rectified.
        watched: whether hooks see the result.
    """
    h, *tensors = _Activate.apply(z, u, function, rule)  # type: ignore[no-untyped-call]
    bits, values, factors, _ = tensors
    packed = Packed(rule=rule, shape=tuple(z.shape), bits=bits, values=values, factors=factors, watched=watched)
    return attach(h, packed)


class _Drop(Function):
    @staticmethod
    def forward(ctx: Any, h: Tensor, noise: Tensor) -> Any:
        kept = mark_fired(noise, _NOT_KEPT)
        ctx.scale = float(noise.amax()) if noise.numel() else 0.0
        ctx.count = int(torch.count_nonzero(noise))
        ctx.shape = tuple(h.shape)
        ctx.save_for_backward(kept)
        ctx.mark_non_differentiable(kept)
        ctx.set_materialize_grads(False)
        return h * noise, kept

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> Any:
        check_first_order()
        given = gradients[0]
        if given is None:
            return None, None
        with torch.no_grad():
            kept = Kept(ctx.saved_tensors[0], ctx.count, ctx.scale)
            result = given * kept.noise(given, ctx.shape)
        return result, None


def drop(h: Tensor, packed: Packed, dropout: Callable[[Tensor], Tensor]) -> Tensor:
    """A hidden activation after dropout, which draws the random numbers that it would have drawn for ``h``."""
    with torch.no_grad():
        noise = dropout(torch.ones_like(h))
        scale = float(noise.amax()) if noise.numel() else 0.0
        count = int(torch.count_nonzero(noise))
    dropped, bits = _Drop.apply(h, noise)  # type: ignore[no-untyped-call]
    return attach(dropped, packed._replace(kept=Kept(bits, count, scale)))


class _Down(Function):
    """A linear layer that keeps its input packed."""

    @staticmethod
    def forward(
        ctx: Any, h: Tensor, weight: Tensor, bias: Tensor | None, linear: Callable[[Tensor], Tensor], packed: Packed
    ) -> Tensor:
        y = linear(h)
        ctx.form, ctx.types = packed.form, (h.dtype, weight.dtype, None if bias is None else bias.dtype)
        ctx.save_for_backward(weight, *(packed.tensors if ctx.needs_input_grad[1] else (None,) * 4))
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        check_first_order()
        (g,) = gradients
        weight, *tensors = ctx.saved_tensors
        to_h = to_weight = to_bias = None
        of_h, of_weight, of_bias = ctx.types
        with torch.no_grad():
            rows = g.reshape(-1, g.shape[-1])
            if ctx.needs_input_grad[1]:
                h = ctx.form.having(tensors).hidden()
                to_weight = (rows.t() @ h.reshape(-1, h.shape[-1]).to(g.dtype)).to(of_weight)
                del h  # its memory is that of the next, as wide as it
            if ctx.needs_input_grad[0]:
                to_h = (g @ weight.to(g.dtype)).to(of_h)
            if ctx.needs_input_grad[2]:
                to_bias = rows.sum(0).to(of_bias)
        return to_h, to_weight, to_bias, None, None


def down(
    h: Tensor, packed: Packed, *, weight: Tensor, bias: Tensor | None, linear: Callable[[Tensor], Tensor]
) -> Tensor:
    """What a linear layer makes of a hidden activation.

    Args:
        h: (..., neurons).
        packed: the same, packed.
        weight: of the layer, (out, neurons), with the graph that leads to its parameter.
        bias: of the layer.
        linear: the layer's own code.
    """
    y: Tensor = _Down.apply(h, weight, bias, linear, packed)  # type: ignore[no-untyped-call]
    return y


def pack_itself(h: Tensor) -> Packed:
    """The non-zero numbers of a hidden activation of which nothing else is known."""
    with torch.no_grad():
        return pack(ITSELF, h)
