"""Rectifying the second factor of a gated block too: ``down(s(gate) * relu(up))``."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lazyneuron.blocks.block import LinearSite, MLPBlock
from lazyneuron.core.errors import ConfigError
from lazyneuron.core.undo import Transaction


class RectifyUp:
    """The forward hook on ``up``, or on the layer that computes gate and up together."""

    known_to_block = True  # as MLPBlock.rectifies_up

    def __init__(self, site: LinearSite) -> None:
        self._rows = site.rows

    def __call__(self, module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
        """The layer's output with the part of ``up`` rectified."""
        if self._rows is None:
            return F.relu(output)
        start, stop = self._rows
        return torch.cat([output[..., :start], F.relu(output[..., start:stop]), output[..., stop:]], dim=-1)


def rectify_up_(change: Transaction, block: MLPBlock) -> None:
    """Rectify the output of a gated block's ``up``.

    Raises:
        ConfigError: the block is not gated, or it is rectified already.
    """
    if block.gate is None or block.rectifies_up:
        state = "is not gated" if block.gate is None else "is rectified already"
        raise ConfigError(f"The up of {block.name} cannot be rectified: the block {state}.")
    module = block.up.module
    change.set(module, "_forward_hooks", OrderedDict(module._forward_hooks))
    module.register_forward_hook(RectifyUp(block.up))


def is_rectified(site: LinearSite) -> bool:
    """Does the layer carry that hook?"""
    return any(isinstance(hook, RectifyUp) for hook in site.module._forward_hooks.values())
