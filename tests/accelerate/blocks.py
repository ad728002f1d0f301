"""Small blocks with known weights for the tests of this folder."""

from __future__ import annotations

import torch
from torch import nn

from lazyneuron.blocks.activation import Activation
from lazyneuron.blocks.block import LinearSite, MLPBlock


def make_block(
    d_in: int,
    d_hidden: int,
    d_out: int,
    *,
    activation: Activation | None = None,
    gated: bool = False,
    rectifies_up: bool = False,
    bias: bool = True,
    shift: float = -1.0,
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
) -> MLPBlock:
    """A block with normal weights; ``shift`` is added to the deciding bias, so that few neurons fire."""
    generator = torch.Generator().manual_seed(seed)

    def linear(n_in: int, n_out: int, offset: float = 0.0) -> nn.Linear:
        layer = nn.Linear(n_in, n_out, bias=bias, dtype=dtype)
        layer.weight.data = (torch.randn(n_out, n_in, generator=generator) / n_in**0.5).to(dtype)
        if bias:
            layer.bias.data = (torch.randn(n_out, generator=generator) * 0.1 + offset).to(dtype)
        return layer.requires_grad_(False)

    gate = linear(d_in, d_hidden, shift) if gated else None
    up = linear(d_in, d_hidden, 0.0 if gated else shift)
    return MLPBlock(
        name="block",
        up=LinearSite(name="up", module=up),
        gate=None if gate is None else LinearSite(name="gate", module=gate),
        down=LinearSite(name="down", module=linear(d_hidden, d_out)),
        activation=activation or Activation("relu"),
        rectifies_up=gated and rectifies_up,
    )
