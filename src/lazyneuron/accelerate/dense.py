"""A block as torch runs it."""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor

from lazyneuron.blocks.block import MLPBlock


def dense(block: MLPBlock) -> Callable[[Tensor], Tensor]:
    """``down(s(up x))`` or ``down(s(gate x) * up x)`` by torch's dense layers, reading the weights at each call."""
    up, down, gate = block.up, block.down, block.gate
    if gate is not None:
        second = F.relu if block.rectifies_up else _as_it_is
        return lambda x: F.linear(
            block.activation(F.linear(x, gate.weight, gate.bias)) * second(F.linear(x, up.weight, up.bias)),
            down.weight,
            down.bias,
        )
    return lambda x: F.linear(block.activation(F.linear(x, up.weight, up.bias)), down.weight, down.bias)


def _as_it_is(u: Tensor) -> Tensor:
    return u
