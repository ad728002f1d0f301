"""The definition of the op, in plain torch; every other implementation must match it."""

from __future__ import annotations

import torch
from torch import Tensor

from lazyneuron.ops.sparse_mlp.packed import PackedBlock, ZeroSet
from lazyneuron.ops.sparse_mlp.sketch import Sketch


def hidden(packed: PackedBlock, x: Tensor, *, compute: torch.dtype = torch.float64) -> Tensor:
    """The hidden activation (tokens, d_hidden), rounded where the model's dtype rounds.

    Args:
        packed: the block.
        x: (tokens, d_in) in the block's dtype.
        compute: dtype of the sums.
    """

    def rounded(t: Tensor) -> Tensor:
        return t if packed.dtype == torch.float32 else t.to(packed.dtype).to(compute)

    wide = x.to(compute)
    z = wide @ packed.first_rows.to(compute).T
    if packed.first_bias is not None:
        z = z + packed.first_bias.to(compute)
    activation = packed.compared
    h = rounded(activation(rounded(z)))
    if activation.kind.startswith("thresholded"):  # torch compares what is rounded
        h = torch.where(h.abs() <= activation.parameters[0], torch.zeros_like(h), h)
    if packed.up_rows is not None:
        up = wide @ packed.up_rows.to(compute).T
        if packed.up_bias is not None:
            up = up + packed.up_bias.to(compute)
        h = rounded(h * rounded(up.relu() if packed.rectifies_up else up))
    return h


def sparse_mlp(packed: PackedBlock, x: Tensor, *, compute: torch.dtype = torch.float64) -> Tensor:
    """``down(s(up x))`` or ``down(s(gate x) * up x)`` with every neuron computed.

    Args:
        packed: the block.
        x: (..., d_in) in the block's dtype.
        compute: dtype of the sums.

    Returns:
        (..., d_out) in the block's dtype.
    """
    tokens = x.reshape(-1, packed.d_in)
    y = hidden(packed, tokens, compute=compute) @ packed.down_rows.to(compute)
    if packed.down_bias is not None:
        y = y + packed.down_bias.to(compute)
    return y.to(packed.dtype).reshape(*x.shape[:-1], packed.d_out)


def computed(packed: PackedBlock, x: Tensor) -> Tensor:
    """Boolean (tokens, d_hidden): which neurons a certified step has to compute, by the definition in float64."""
    return ~certified_silent(packed.sketch, x.reshape(-1, packed.d_in), packed.zero)


def certified_silent(sketch: Sketch, x: Tensor, zero: ZeroSet) -> Tensor:
    """Which neurons are proved silent, by the definition in float64: the reference of the native test.

    Args:
        sketch: of a weight (d_hidden, d_in).
        x: (tokens, d_in); taken as it is, without quantisation.
        zero: where the activation is zero, ends already in the model's dtype.

    Returns:
        Boolean (tokens, d_hidden).
    """
    scale, bias, slack, _, absolute, limit = sketch.certificate[:, : sketch.d_hidden].double()
    wide = x.double()
    z = wide @ (scale[:, None] * sketch.quantised_rows().double()).T + bias
    norm = wide.norm(dim=-1, keepdim=True)
    reach = norm * slack + absolute
    silent: Tensor = zero.holds(z - reach, z + reach) & (norm <= limit)  # false where x is not finite
    return silent
