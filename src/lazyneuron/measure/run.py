"""Measuring how sparsely a model fires, without changing it."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lazyneuron.blocks.block import MLPBlock
from lazyneuron.blocks.find import Found, find
from lazyneuron.core.batch import call_model
from lazyneuron.core.errors import ConfigError, DataError, NoBlocksError, ShapeError
from lazyneuron.core.undo import active_changes
from lazyneuron.measure.cost import BlockCost
from lazyneuron.measure.masks import EXCLUDED, MISFIT, NO_MASK, BatchMask, TokensMask, with_masks
from lazyneuron.measure.observe import observing
from lazyneuron.measure.sparsity import BlockSparsity, PredictedGain, SparsityReport, UnionDensity
from lazyneuron.measure.tally import UNION_SIZES, Tally, Tokens

# kinds whose value is nonzero exactly where the pre-activation is positive
_FIRES_IF_POSITIVE = frozenset({"relu", "relu6", "jsrelu"})


def measure(
    model: nn.Module,
    batches: Iterable[Any],
    *,
    tokens_mask: TokensMask | None = None,
    threshold: float | None = None,
    blocks: Sequence[MLPBlock] | None = None,
    cost: BlockCost | None = None,
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
        blocks: the blocks to observe; None finds all of them.
        cost: predicts times on this machine; None leaves the predictions out, and only the byte ceilings remain.

    Returns:
        The report; ``str(report)`` is a table.

    Raises:
        NoBlocksError: the model has no MLP block, or none of them ran.
        DataError: there are no batches, a batch is of the wrong kind, or there are fewer masks than batches.
        ConfigError: the threshold is negative or not finite, or ``tokens_mask`` is a single tensor.
        ShapeError: ``tokens_mask`` was given and fits no block.

    Cost: two comparisons over each hidden activation (one for ReLU) and counting at an eighth of its size in words; at
        most 2 MiB plus one call's booleans are kept for each block. Nothing is copied to the host before the end.
    """
    if threshold is not None and not (math.isfinite(threshold) and threshold >= 0):
        raise ConfigError(
            f"A threshold is a finite number >= 0, got {threshold}; leave it out to count exact zeros only."
        )
    watches = [_Watch(model, block, threshold) for block in blocks_of(model, blocks)]
    count = 0
    with observing(model), _hooked(watches):
        for batch, mask in with_masks(batches, tokens_mask):
            for watch in watches:
                watch.mask = mask
            call_model(model, batch)
            count += 1
        if not count:
            raise DataError("There are no batches to measure on; pass at least one.")
        measured = tuple(watch.result(cost) for watch in watches)
    if not any(b.tokens for b in measured):
        raise NoBlocksError(
            f"None of the {len(measured)} blocks saw a real token in {count} batches; "
            "pass batches that run through them, and a mask that is not zero everywhere."
        )
    if tokens_mask is not None and not any(b.padding == EXCLUDED for b in measured):
        raise ShapeError(_misfit(measured, watches))
    return SparsityReport(blocks=measured, batches=count, threshold=threshold, training=model.training)


def blocks_of(model: nn.Module, blocks: Sequence[MLPBlock] | None) -> Sequence[MLPBlock]:
    """The given blocks, or all of the model's.

    Raises:
        NoBlocksError: there are none.
    """
    if blocks:
        return blocks
    found = find(model) if blocks is None else Found(blocks=(), rejected=())
    if not found.blocks and active_changes(model):
        raise NoBlocksError("No MLP block was found in this model; restore the changes that are in force on it first.")
    return found.or_raise().blocks


def _misfit(measured: Sequence[BlockSparsity], watches: Sequence[_Watch]) -> str:
    mask = watches[0].mask.mask
    got = tuple(mask.shape) if mask is not None else None
    return (
        f"The masks that tokens_mask gave (last one: shape {got}) fit none of the {len(measured)} blocks; "
        f"a mask has the token axes of the hidden activation (last one: {watches[0].leading})."
    )


class _Watch:
    """The hooks on one block and what they have counted."""

    def __init__(self, model: nn.Module, block: MLPBlock, threshold: float | None) -> None:
        self.block = block
        self.threshold = threshold
        self.mask = BatchMask(None)
        self.leading: tuple[int, ...] = ()
        self.padding = NO_MASK
        self.notes: dict[str, None] = {}
        self.tally: Tally | None = None
        self.reads_switch = (block.gate is not None and not block.rectifies_up) or _dropping(model, block)
        self.fires_if_positive = block.activation.kind in _FIRES_IF_POSITIVE and not threshold

    def attach(self) -> Iterator[torch.utils.hooks.RemovableHandle]:
        if self.reads_switch or not self.fires_if_positive:
            yield self.block.switch.module.register_forward_hook(self._on_switch)
        if not self.reads_switch:
            yield self.block.down.module.register_forward_pre_hook(self._on_hidden)

    def _on_switch(self, _: nn.Module, __: Any, output: Any) -> None:
        admitted = self._admit(output)
        if admitted is None:
            return
        z, tally, tokens = admitted
        positive = z > 0
        if self.reads_switch:
            tally.add_fired(positive if self.fires_if_positive else self._fired(self._activated(z)), tokens)
        if not self.fires_if_positive:
            tally.add_positive(positive, tokens)

    def _on_hidden(self, _: nn.Module, inputs: tuple[Any, ...]) -> None:
        admitted = self._admit(inputs[0] if inputs else None)
        if admitted is not None:
            h, tally, tokens = admitted
            tally.add_fired(self._fired(h), tokens)

    def _activated(self, z: Tensor) -> Tensor:
        # an unknown function may work in place
        return self.block.activation(z.clone() if self.block.activation.function is not None else z)

    def _fired(self, h: Tensor) -> Tensor:
        # negated, so that NaN counts as firing
        return h != 0 if self.threshold is None else ~(h.abs() <= self.threshold)

    def _admit(self, value: Any) -> tuple[Tensor, Tally, Tokens] | None:
        """The activation with its tally and tokens; None, and a note, when it is not one of this block's."""
        if not isinstance(value, Tensor) or not value.dim() or value.size(-1) != self.block.d_hidden:
            got = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            note = (
                f"A call was left out: its hidden activation is {got}, not a tensor of {self.block.d_hidden} neurons."
            )
            self.notes[note] = None
            return None
        if self.tally is None:
            self.tally = Tally(self.block.d_hidden, value.device)
        if value.is_nested:  # torch's own encoder drops the padding in this way
            parts = value.unbind()
            tokens, padding = Tokens.of_lengths([len(p) for p in parts], value.device), EXCLUDED
            value = torch.cat(parts)
        else:
            self.leading = tuple(value.shape[:-1])
            tokens, padding = self.mask.fit(self.leading, value.device)
        if padding == MISFIT or self.padding == NO_MASK:
            self.padding = padding
        return value, self.tally, tokens

    def result(self, cost: BlockCost | None) -> BlockSparsity:
        block = self.block
        totals = (self.tally or Tally(block.d_hidden, torch.device("cpu"))).totals()
        density = int(totals.fired.sum()) / (totals.tokens * block.d_hidden) if totals.tokens else None
        unions = tuple(
            UnionDensity(tokens=t, density=u, windows=w) for t, (u, w) in zip(UNION_SIZES, totals.unions, strict=True)
        )
        if not totals.calls:
            self.notes["It did not run."] = None
        if self.padding == MISFIT:
            self.notes["The mask does not have this block's token axes, so every token counts as real."] = None
        return BlockSparsity(
            name=block.name,
            activation=block.activation.kind,
            gated=block.gate is not None,
            refusal=block.refusal,
            d_in=block.d_in,
            d_hidden=block.d_hidden,
            d_out=block.d_out,
            itemsize=block.up.weight.element_size(),
            calls=totals.calls,
            tokens=totals.tokens,
            density=density,
            density_if_relu=density if self.fires_if_positive else totals.positive_share,
            firing_counts=totals.fired,
            unions=unions,
            overlap=totals.overlap,
            overlap_pairs=totals.pairs,
            padding=self.padding,
            notes=tuple(self.notes),
            predicted=_predictions(block, unions, density=density, cost=cost),
        )


def _predictions(
    block: MLPBlock, unions: Sequence[UnionDensity], *, density: float | None, cost: BlockCost | None
) -> tuple[PredictedGain, ...]:
    if cost is None or density is None:
        return ()
    return tuple(
        PredictedGain(
            tokens=union.tokens,
            step=cost(block, tokens=union.tokens, density=density, union_density=union.density),
        )
        for union in unions
        if union.density is not None
    )


def _dropping(model: nn.Module, block: MLPBlock) -> bool:
    """Does dropout put zeros on the hidden activation in the mode that the model is in?"""
    modules = [model.get_submodule(name) for name in block.dropouts]
    return any(m.training and getattr(m, "p", 1.0) > 0 for m in modules)


@contextlib.contextmanager
def _hooked(watches: Sequence[_Watch]) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        for watch in watches:
            for handle in watch.attach():
                stack.callback(handle.remove)
        yield
