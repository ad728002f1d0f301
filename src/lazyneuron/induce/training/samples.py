"""What each block of a model is given and what it answers, kept for training or refitting a block alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lazyneuron.blocks.block import MLPBlock
from lazyneuron.blocks.borrowed import borrowed
from lazyneuron.blocks.find import check_blocks
from lazyneuron.blocks.recorder import Seen, real_tokens, recording
from lazyneuron.core.batch import call_model, padding_mask
from lazyneuron.core.errors import DataError


@dataclasses.dataclass(frozen=True, kw_only=True)
class BlockSamples:
    """What a block was given and what it answered, one row for each real token.

    Attributes:
        inputs: (tokens, d_in).
        outputs: (tokens, d_out), what ``down`` returned.
    """

    inputs: Tensor
    outputs: Tensor


def block_samples(model: nn.Module, blocks: Sequence[MLPBlock], *, batches: Iterable[Any]) -> dict[str, BlockSamples]:
    """Run a model and keep each block's inputs and outputs at the real tokens.

    Args:
        model: the original.
        blocks: its blocks.
        batches: what to run it on; ``attention_mask`` marks padding.

    Returns:
        The samples by block name.

    Raises:
        DataError: there are no batches, or a block did not run.
        ConfigError: the blocks are of another model or outdated.

    Cost: one forward for each batch; keeps ``d_in + d_out`` numbers for each token and block.
    """
    check_blocks(model, blocks)
    rows: dict[str, tuple[list[Tensor], list[Tensor]]] = {block.name: ([], []) for block in blocks}
    mask: list[Tensor | None] = [None]

    def keep(side: int) -> Seen:
        return lambda block, value: rows[block.name][side].append(real_tokens(value, mask[0]))

    with borrowed(model, observe=True, evaluate=True), recording(blocks, inputs=keep(0), outputs=keep(1)):
        for batch in batches:
            mask[0] = padding_mask(batch)
            call_model(model, batch)
    empty = [name for name, (inputs, _) in rows.items() if not inputs]
    if empty or not rows:
        raise DataError(f"No tokens ran through {empty or 'any block'}; pass batches that reach every block.")
    return {name: BlockSamples(inputs=torch.cat(i), outputs=torch.cat(o)) for name, (i, o) in rows.items()}
