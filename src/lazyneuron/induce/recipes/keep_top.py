"""The recipe that gives each token a fixed number of neurons."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from torch import nn

from lazyneuron.blocks.block import MLPBlock
from lazyneuron.blocks.splice import replace_activation_
from lazyneuron.core.arguments import check_fraction, check_patterns
from lazyneuron.core.errors import ConfigError
from lazyneuron.core.undo import Transaction
from lazyneuron.induce.activations.topk import BlockTopK, StatisticalTopK, TopK
from lazyneuron.induce.recipe import Recipe, register_recipe


@register_recipe
@dataclasses.dataclass(frozen=True, kw_only=True)
class KeepTop(Recipe):
    """Put :class:`lazyneuron.induce.TopK` or :class:`lazyneuron.induce.StatisticalTopK` into MLP blocks.

    Which neurons fire then depends on the whole token, so these blocks have no zero interval: they train sparsely, and
    ``accelerate_`` refuses them, since no neuron can be proved silent by itself.

    Attributes:
        density: share of a block's neurons that may fire, in (0, 1).
        group: neurons that fire together, by :class:`lazyneuron.induce.BlockTopK`; 1 for each by itself.
        statistical: estimate the cut from each token's mean and deviation instead of selecting.
        straight_through: give neurons that were cut a gradient; of no meaning when ``statistical``.
        blocks: glob patterns of block names.
    """

    density: float
    statistical: bool = False
    group: int = 1
    straight_through: bool = True
    blocks: tuple[str, ...] = ("*",)

    def __post_init__(self) -> None:
        check_fraction("density", self.density)
        if self.group < 1 or (self.group > 1 and self.statistical):
            raise ConfigError(f"`group` is >= 1, and 1 if the cut is statistical, got {self.group}.")
        check_patterns(self.blocks)

    def module_for(self, block: MLPBlock) -> TopK | StatisticalTopK | BlockTopK:
        """The activation that this block gets; at least one neuron of a token may fire."""
        if self.statistical:
            return StatisticalTopK(self.density)
        if self.group > 1:
            groups = max(1, round(self.density * block.d_hidden / self.group))
            return BlockTopK(groups, self.group, straight_through=self.straight_through)
        return TopK(max(1, round(self.density * block.d_hidden)), straight_through=self.straight_through)

    def refuses(self, model: nn.Module, block: MLPBlock, *, blocks: Sequence[MLPBlock]) -> str | None:
        """Why this block cannot be changed, or None."""
        kind = block.activation.kind
        if block.d_hidden % self.group:
            return f"Its {block.d_hidden} neurons do not divide into groups of {self.group}."
        if block.activation == self.module_for(block).activation_spec():
            return f"Its activation is already {kind}."
        if block.site is None:
            return f"Its activation ({kind}) is written into a forward and cannot be replaced."
        return None

    def describes(self, model: nn.Module, block: MLPBlock) -> str:
        """What becomes of a block."""
        return f"{block.activation.kind} is to become {self.module_for(block)!r}."

    def install_(self, change: Transaction, block: MLPBlock, *, fitted: Any) -> None:
        """Put the selection in the block."""
        replace_activation_(change, block, self.module_for(block).train(change.model.training))
