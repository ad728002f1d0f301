"""How much of a model's time its MLP blocks take: Amdahl's limit for everything that speeds them up."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import nn

from lazyneuron.blocks.block import MLPBlock
from lazyneuron.blocks.borrowed import borrowed
from lazyneuron.blocks.find import blocks_of
from lazyneuron.blocks.recorder import recording
from lazyneuron.core.batch import call_model
from lazyneuron.core.errors import DataError


def mlp_time_share(
    model: nn.Module, batches: Iterable[Any], *, blocks: Sequence[MLPBlock] | None = None, repeats: int = 3
) -> float:
    """Share of a forward's time between the start of a block's first linear layer and the end of its last.

    Args:
        model: any model with MLP blocks; it runs as in :func:`lazyneuron.measure.measure`.
        batches: the batches; each runs once to warm up and then ``repeats`` times.
        blocks: the blocks to time; None finds all of them.
        repeats: timed runs a batch.

    Returns:
        The median over all timed runs, in [0, 1]. Speeding the blocks up k-fold speeds the model up at most
        ``1 / (1 - share + share / k)``-fold.

    Raises:
        NoBlocksError: the model has no MLP block.
        DataError: there are no batches.

    Cost: ``1 + repeats`` forwards a batch; on CUDA a synchronisation at both ends of each block.
    """
    clock = _Clock()
    shares = []
    watched = blocks_of(model, blocks)
    with borrowed(model, observe=True), recording(watched, entering=clock.begin, outputs=clock.end):
        for batch in batches:
            call_model(model, batch)
            for _ in range(repeats):
                clock.inside = 0.0
                start = _now()
                call_model(model, batch)
                shares.append(clock.inside / (_now() - start))
    if not shares:
        raise DataError("There are no batches to time; pass at least one, and repeats >= 1.")
    return float(torch.tensor(shares, dtype=torch.float64).median())


def _now() -> float:
    if torch.cuda.is_available() and torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.synchronize()
    return time.perf_counter()


class _Clock:
    """Sums the time inside blocks; a block's start is the first of its linear layers to be called."""

    def __init__(self) -> None:
        self.inside = 0.0
        self._started: dict[str, float] = {}

    def begin(self, block: MLPBlock, _: Any) -> None:
        if block.name not in self._started:
            self._started[block.name] = _now()

    def end(self, block: MLPBlock, _: Any) -> None:
        if block.name in self._started:
            self.inside += _now() - self._started.pop(block.name)
