"""The second half of a quantised block whose activation depends on the whole token: what fires is known, then read."""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from torch import Tensor

from lazyneuron.ops.quantised import operators

_GATHERED = 0.3  # of the neurons: where more fire for some token, reading all rows in order takes less than a copy


@functools.cache
def op() -> Callable[..., Tensor]:
    """The operator ``lazyneuron::quantised_selected``, registered on first use; its arguments are :func:`selected`'s.

    Raises:
        ImplUnavailable: the kernels are not built here, with the reason.
    """
    operators.operators()
    made = torch.library.custom_op("lazyneuron::quantised_selected", selected, mutates_args={"counts"})
    made.register_fake(_fake)
    call: Callable[..., Tensor] = torch.ops.lazyneuron.quantised_selected.default
    return call


def selected(
    x: Tensor,
    s: Tensor,
    up: Tensor | None,
    up_scale: Tensor | None,
    up_bias: Tensor | None,
    rectify_up: bool,
    down: Tensor,
    down_scale: Tensor,
    down_bias: Tensor | None,
    counts: Tensor,
    bits: int,
    group: int,
    every: bool,
) -> Tensor:
    """``down(s * up(x))``, or ``down(s)`` of a plain block: rows of neurons where ``s`` is zero are not read.

    Args:
        x: (..., d_in) on the CPU, float32, bfloat16 or float16.
        s: (..., d_hidden) values of the activation, in the dtype of x.
        up, up_scale, up_bias: rows, scales and bias of the second factor of a gated block, else None.
        rectify_up: whether that factor is rectified too.
        down, down_scale, down_bias: the second layer by neuron.
        counts: int64 (4,) that calls add to: pairs computed, pairs fired, tokens, calls.
        bits, group: the format.
        every: read every neuron's row of ``up``, whatever fires.

    Returns:
        (..., d_out) in the dtype of x: what the layers give one after the other, to the last bit.

    Cost:
        Bytes for one token at density a, b a weight: ``b d_hidden a (d_in + d_out)``, and a copy of the rows of ``up``.
    """
    native = operators.operators()
    tokens, hidden = x.reshape(-1, x.shape[-1]), s.reshape(-1, s.shape[-1])
    fired, pairs = int(torch.count_nonzero(hidden)), hidden.numel()
    if up is not None and up_scale is not None:
        fires = torch.arange(hidden.shape[1]) if every else (hidden != 0).any(0).nonzero()[:, 0]
        if len(fires) > _GATHERED * hidden.shape[1]:
            u = native.quantised_linear(tokens, up, up_scale, up_bias, bits, group)
            hidden = hidden * (u.relu() if rectify_up else u)
        elif len(fires):
            rows, scale = up.index_select(0, fires), up_scale.index_select(0, fires)
            bias = None if up_bias is None else up_bias.index_select(0, fires)
            u = native.quantised_linear(tokens, rows, scale, bias, bits, group)
            part = hidden.index_select(1, fires) * (u.relu() if rectify_up else u)
            hidden = torch.zeros_like(hidden).index_copy_(1, fires, part)
    y: Tensor = native.quantised_down(hidden, down, down_scale, down_bias, bits, group)
    counts += torch.tensor([pairs if every else fired, pairs if every else fired, len(tokens), 1])
    return y.reshape(*x.shape[:-1], y.shape[-1])


def _fake(x: Tensor, s: Tensor, *rest: object) -> Tensor:
    down, bits = rest[4], rest[8]
    assert isinstance(down, Tensor)
    return x.new_empty((*x.shape[:-1], down.shape[1] if bits == 8 else 2 * down.shape[1]))
