"""A block as torch runs it."""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor

from lazyneuron.blocks.block import MLPBlock


def dense(block: MLPBlock) -> Callable[[Tensor], Tensor]:
    """``down(s(up x))`` or ``down(s(gate x) * up x)`` by torch's dense layers; dReLU rectifies ``up x`` too.

    The weights are read at each call, and what the activation returns is cast to ``down``'s dtype.
    """
    up, down, gate = block.up, block.down, block.gate
    if gate is None:

        def plain(x: Tensor) -> Tensor:
            h = block.activation(F.linear(x, up.weight, up.bias))
            return F.linear(h.to(down.weight.dtype), down.weight, down.bias)

        return plain
    second = F.relu if block.rectifies_up else _as_it_is

    def gated(x: Tensor) -> Tensor:
        h = block.activation(F.linear(x, gate.weight, gate.bias)) * second(F.linear(x, up.weight, up.bias))
        return F.linear(h.to(down.weight.dtype), down.weight, down.bias)

    return gated


def _as_it_is(u: Tensor) -> Tensor:
    return u
