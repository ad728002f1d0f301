"""A block as torch runs it."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from lazyneuron.blocks.block import MLPBlock


def dense(block: MLPBlock) -> Callable[[Tensor], Tensor]:
    """:meth:`MLPBlock.forward`."""
    return block.forward
