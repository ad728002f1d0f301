"""Real inputs of blocks, caught while the model runs on its batches."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lazyneuron.blocks.block import MLPBlock
from lazyneuron.core.batch import call_model, padding_mask
from lazyneuron.core.errors import DataError

MOST_TOKENS = 1024
_MOST_BATCHES = 8


def block_inputs(model: nn.Module, blocks: Sequence[MLPBlock], batches: Iterable[Any]) -> dict[str, Tensor]:
    """Up to 1024 input rows of each block, padding left out; the model is as before afterwards.

    Raises:
        DataError: there are no batches.
    """
    kept: dict[str, list[Tensor]] = {block.name: [] for block in blocks}
    mask: Tensor | None = None

    def hook_of(name: str) -> Any:
        def hook(_: nn.Module, inputs: tuple[Any, ...]) -> None:
            x = inputs[0].detach()
            rows = x.reshape(-1, x.shape[-1])
            if mask is not None and mask.numel() == rows.shape[0]:
                rows = rows[mask.reshape(-1) != 0]
            if sum(len(t) for t in kept[name]) < MOST_TOKENS:
                kept[name].append(rows[:MOST_TOKENS].clone())

        return hook

    modes = [(module, module.training) for module in model.modules()]
    handles = [b.switch.module.register_forward_pre_hook(hook_of(b.name)) for b in blocks]
    count = 0
    try:
        model.eval()
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            for batch in itertools.islice(batches, _MOST_BATCHES):
                mask = padding_mask(batch)
                call_model(model, batch)
                count += 1
                if all(sum(len(t) for t in rows) >= MOST_TOKENS for rows in kept.values()):
                    break
    finally:
        for handle in handles:
            handle.remove()
        for module, mode in modes:
            module.training = mode
    if count == 0:
        raise DataError("There are no batches; pass at least one, or None to accelerate without data.")
    return {name: torch.cat(rows)[:MOST_TOKENS] for name, rows in kept.items() if rows and sum(map(len, rows))}
