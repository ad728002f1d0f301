"""Replacing smooth activation functions by one that is exactly zero on an interval."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import nn

from lazyneuron.blocks.activation import Activation
from lazyneuron.blocks.block import MLPBlock
from lazyneuron.blocks.splice import replace_activation_
from lazyneuron.blocks.splice.rectify import rectify_up_
from lazyneuron.core.arguments import check_patterns, described
from lazyneuron.core.errors import ConfigError
from lazyneuron.core.undo import Transaction
from lazyneuron.induce.recipe import Recipe, register_recipe
from lazyneuron.induce.recipe_data import spelled

RELU = Activation("relu")


@register_recipe
@dataclasses.dataclass(frozen=True, kw_only=True)
class Relufy(Recipe):
    """Give MLP blocks an activation function with silent neurons.

    The output changes; train afterwards, e.g. with :func:`lazyneuron.induce.training.distill`.

    Attributes:
        blocks: glob patterns of block names; a block that matches any of them is changed.
        activation: the function to install; it must have a zero interval.
        per_block: other functions for some blocks, by name, such as the thresholds of :func:`thresholds_for`.
        rectify_up: in gated blocks rectify up as well, so that a neuron is silent where either factor is; with ReLU
            this is dReLU, ``relu(gate) * relu(up)``. Blocks without a gate are then skipped.
    """

    blocks: tuple[str, ...] = ("*",)
    activation: Activation = RELU
    per_block: Mapping[str, Activation] = dataclasses.field(default_factory=dict)
    rectify_up: bool = False

    def __post_init__(self) -> None:
        check_patterns(self.blocks)
        if not isinstance(self.per_block, Mapping):
            raise ConfigError(f"`per_block` maps names of blocks to activations, got {described(self.per_block)}.")
        for activation in (self.activation, *self.per_block.values()):
            if not isinstance(activation, Activation):
                raise ConfigError(
                    f"Relufy installs an Activation, got {described(activation)}; use Activation('relu')."
                )
            if activation.zero.empty:
                raise ConfigError(
                    f"Activation {activation.kind!r} is zero nowhere, so no neuron would fall silent; "
                    "choose one with a zero interval, such as relu."
                )

    def activation_of(self, block: str) -> Activation:
        """The function that this block gets."""
        return self.per_block.get(block, self.activation)

    @property
    def only_activations(self) -> bool:
        """As long as up is not rectified."""
        return not self.rectify_up

    def names(self) -> Iterable[str]:
        """Those with a function of their own."""
        return self.per_block

    def refuses(self, model: nn.Module, block: MLPBlock, *, blocks: Sequence[MLPBlock]) -> str | None:
        """Why this block cannot be changed, or None."""
        before = block.activation
        if self.rectify_up and block.gate is None:
            return "It is not gated, so there is no second factor to rectify."
        if before == self.activation_of(block.name) and (block.rectifies_up or not self.rectify_up):
            return f"Its activation is already {before.kind}."
        if block.site is None:
            return f"Its activation ({before.kind}) is written into a forward and cannot be replaced from outside."
        return None

    def describes(self, model: nn.Module, block: MLPBlock) -> str:
        """What becomes of a block."""
        sentence = f"{block.activation.kind} is to become {self.activation_of(block.name).kind}"
        return sentence + (", and up is to be rectified." if self.rectify_up else ".")

    def details(self, block: MLPBlock, *, replaced: bool) -> Mapping[str, Any]:
        """The function before and after."""
        after = self.activation_of(block.name) if replaced else block.activation
        return {"before": spelled(block.activation), "after": spelled(after)}

    def install_(self, change: Transaction, block: MLPBlock, *, fitted: Any) -> None:
        """Put the function in the block."""
        replace_activation_(change, block, self.activation_of(block.name))
        if self.rectify_up and not block.rectifies_up:
            rectify_up_(change, block)
