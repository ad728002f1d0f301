"""The blocks that a verb works on: those that it was given, or all that the model has."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from torch import nn

from lazyneuron.blocks.block import MLPBlock
from lazyneuron.blocks.find.finder import Found, find
from lazyneuron.blocks.identify import identify
from lazyneuron.blocks.splice.override import Pass
from lazyneuron.blocks.splice.rectify import is_rectified
from lazyneuron.core.arguments import check_model, described
from lazyneuron.core.errors import ConfigError, NoBlocksError
from lazyneuron.core.undo import active_changes


def found_in(model: nn.Module, blocks: Sequence[MLPBlock] | None, example: Any = None) -> Found:
    """The given blocks, or all of the model's and what was rejected.

    Args:
        model: the model.
        blocks: what :func:`find_blocks` gave for it, or a part of that; None looks for all.
        example: one batch item for that search.

    Raises:
        NoBlocksError: there are none.
        ConfigError: what was given are no blocks, not this model's, or not as the model is now.
    """
    if blocks is None:
        found = find(model, example)
        if not found.blocks and active_changes(model):
            raise NoBlocksError(
                "No MLP block was found in this model; restore the changes that are in force on it first."
            )
        return found.or_raise()
    check_blocks(model, blocks)
    return Found(blocks=tuple(blocks), rejected=()).or_raise()


def blocks_of(model: nn.Module, blocks: Sequence[MLPBlock] | None) -> Sequence[MLPBlock]:
    """The blocks of :func:`found_in`."""
    return found_in(model, blocks).blocks


def check_blocks(model: nn.Module, blocks: Any) -> None:
    """Refuse what are no blocks of a model as it is now.

    Raises:
        ConfigError: they are not.
    """
    check_model(model)
    if not isinstance(blocks, Collection) or not all(isinstance(block, MLPBlock) for block in blocks):
        raise ConfigError(f"`blocks` are MLPBlocks, as find_blocks gives them, got {described(blocks)}; pass a list.")
    there = set(model.modules())
    for block in blocks:
        if any(site.module not in there for site in block.linears):
            raise ConfigError(
                f"The block {block.name!r} is of another model, or its layers were replaced; find the blocks of this "
                "model with find_blocks."
            )
        if _is_outdated(block):
            raise ConfigError(
                f"The block {block.name!r} was found with the activation {block.activation.kind}, which has changed "
                "since; find the blocks again with find_blocks."
            )


def _is_outdated(block: MLPBlock) -> bool:
    """Was another kind of activation put in since? One that learns its numbers is still of its kind."""
    if block.gate is not None and (is_rectified(block.up) or block.rectified_by_model) != block.rectifies_up:
        return True
    if block.site is None or block.activation.kind == "other":
        return False
    held = block.site.function
    held = held.original if isinstance(held, Pass) else held
    if isinstance(getattr(held, "__dict__", {}).get("forward"), Pass):
        return False  # it is executed elsewhere as long as the block is replaced
    return identify(held).kind != block.activation.kind
