"""Real inputs of blocks, caught while the model runs on its batches."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lazyneuron.blocks.block import MLPBlock
from lazyneuron.blocks.borrowed import borrowed
from lazyneuron.blocks.recorder import real_tokens, recording
from lazyneuron.core.batch import call_model, padding_mask
from lazyneuron.core.errors import DataError

MOST_TOKENS = 1024
MOST_BATCHES = 8


def block_inputs(model: nn.Module, blocks: Sequence[MLPBlock], batches: Iterable[Any]) -> dict[str, Tensor]:
    """Up to 1024 input rows of each block, padding left out; the model is as before afterwards.

    Raises:
        DataError: there are no batches.
    """
    kept: dict[str, list[Tensor]] = {block.name: [] for block in blocks}
    mask: Tensor | None = None

    def keep(block: MLPBlock, x: Tensor) -> None:
        if sum(map(len, kept[block.name])) < MOST_TOKENS:
            kept[block.name].append(real_tokens(x, mask)[:MOST_TOKENS].clone())

    count = 0
    with borrowed(model, observe=True, evaluate=True), recording(blocks, inputs=keep):
        for batch in itertools.islice(batches, MOST_BATCHES):
            mask = padding_mask(batch)
            call_model(model, batch)
            count += 1
            if all(sum(map(len, rows)) >= MOST_TOKENS for rows in kept.values()):
                break
    if count == 0:
        raise DataError("There are no batches; pass at least one, or None to accelerate without data.")
    return {name: torch.cat(rows)[:MOST_TOKENS] for name, rows in kept.items() if rows and sum(map(len, rows))}
