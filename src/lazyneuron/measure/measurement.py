"""Measuring how sparsely a model fires, without changing it."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from torch import nn

from lazyneuron.blocks.block import MLPBlock
from lazyneuron.blocks.borrowed import borrowed
from lazyneuron.blocks.find import found_in
from lazyneuron.core.arguments import described
from lazyneuron.core.batch import call_model
from lazyneuron.core.errors import ConfigError, DataError, NoBlocksError, ShapeError
from lazyneuron.measure.cost import BlockCost
from lazyneuron.measure.forecast import Law, check_law
from lazyneuron.measure.masks import EXCLUDED, TokensMask, with_masks
from lazyneuron.measure.sparsity import BlockSparsity, SparsityReport
from lazyneuron.measure.watch import BlockWatch


def measure(
    model: nn.Module,
    batches: Iterable[Any],
    *,
    tokens_mask: TokensMask | None = None,
    threshold: float | None = None,
    blocks: Sequence[MLPBlock] | None = None,
    cost: BlockCost | None = None,
    forecast: Law | None = None,
) -> SparsityReport:
    """Run ``model`` on ``batches`` and count which neurons fire.

    A pure observer: parameters, buffers, torch's random state, mode (training or evaluation) and hooks are afterwards
    what they were, also after an exception or Ctrl-C. The model runs in the mode that it is in, without autograd and,
    if it is compiled, eagerly. In training mode dropout acts as ever, but the zeros that it puts on a hidden activation
    do not count as silence.

    Args:
        model: any model with MLP blocks.
        batches: an iterable of batches: a Tensor, a tuple of positional or a mapping of keyword arguments each.
        tokens_mask: which tokens are real: a function from a batch to a tensor (or None), or an iterable with one
            tensor a batch; nonzero means real. Its axes are those of the hidden activation without the last, or
            flattened ones. None takes the batch's ``attention_mask`` if it has one.
        threshold: activations of at most this magnitude count as zero; None counts exact zeros only. In a gated block
            it applies to ``s(gate)``, and silence is that of ``s(gate)`` unless its up is rectified too.
        blocks: the blocks to observe, as ``find_blocks`` gave them; None finds all.
        cost: predicts times on this machine; None leaves the predictions out, and only the byte ceilings remain.
        forecast: forecast each block's density from the moments of its inputs, beside what fires: ``"gaussian"`` (mean
            and covariance) or ``"empirical"`` (skewness and kurtosis of each pre-activation too).

    Returns:
        The report; ``str(report)`` is a table.

    Raises:
        NoBlocksError: the model has no MLP block, or none of them ran.
        DataError: there are no batches, a batch is of the wrong kind, or there are fewer masks than batches.
        ConfigError: the threshold is negative or not finite, a forecast is of no known law or asked for with a
            threshold, ``tokens_mask`` is a single tensor, or ``blocks`` are of another model or outdated.
        ShapeError: ``tokens_mask`` was given and fits no block.

    Cost: two comparisons over each hidden activation (one for ReLU) and counting at an eighth of its size in words; at
        most 2 MiB plus one call's booleans are kept for each block. Nothing is copied to the host before the end.
    """
    if threshold is not None and not (isinstance(threshold, int | float) and 0 <= threshold < math.inf):
        raise ConfigError(
            f"A threshold is a finite number >= 0, got {threshold!r}; leave it out to count exact zeros only."
        )
    if cost is not None and not callable(cost):
        raise ConfigError(f"cost is a function that predicts times, got {described(cost)}; leave it out.")
    found = found_in(model, blocks)
    check_law(forecast)
    if forecast is not None and threshold is not None:
        raise ConfigError("A forecast is of exact zeros, but a threshold was given; leave one of both out.")
    watches = [BlockWatch(model, block, threshold, forecast=forecast) for block in found.blocks]
    count = 0
    with borrowed(model, observe=True), _hooked(watches):
        for batch, mask in with_masks(batches, tokens_mask):
            for watch in watches:
                watch.mask = mask
            call_model(model, batch)
            count += 1
        if not count:
            raise DataError("There are no batches to measure on; pass at least one.")
        measured = tuple(watch.result(cost) for watch in watches)
    if not any(b.tokens for b in measured):
        raise NoBlocksError(_nothing_seen(measured, count))
    if tokens_mask is not None and not any(b.padding == EXCLUDED for b in measured):
        raise ShapeError(_misfit(measured, watches))
    return SparsityReport(
        blocks=measured, batches=count, threshold=threshold, training=model.training, rejected=found.rejected
    )


def _nothing_seen(measured: Sequence[BlockSparsity], count: int) -> str:
    seen = f"None of the {len(measured)} blocks saw a real token in {count} batches"
    if any(b.padding == EXCLUDED for b in measured):
        return f"{seen}, because the masks are zero everywhere; pass masks that are nonzero where a token is real."
    notes = dict.fromkeys(note for b in measured for note in b.notes)
    return f"{seen} ({' '.join(notes)}); pass batches that run through them."


def _misfit(measured: Sequence[BlockSparsity], watches: Sequence[BlockWatch]) -> str:
    mask = watches[0].mask.mask
    got = tuple(mask.shape) if mask is not None else None
    return (
        f"The masks that tokens_mask gave (last one: shape {got}) fit none of the {len(measured)} blocks; "
        f"a mask has the token axes of the hidden activation (last one: {watches[0].leading})."
    )


@contextlib.contextmanager
def _hooked(watches: Sequence[BlockWatch]) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        for watch in watches:
            stack.enter_context(watch.watching())
        yield
