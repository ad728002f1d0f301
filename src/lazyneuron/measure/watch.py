"""Counting what fires in one block, in whatever forwards run meanwhile."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lazyneuron.blocks.block import MLPBlock
from lazyneuron.blocks.recorder import recording
from lazyneuron.measure.cost import BlockCost
from lazyneuron.measure.forecast import NOT_FINITE, Forecast, Law, Moments, why_not
from lazyneuron.measure.masks import EXCLUDED, MISFIT, NO_MASK, BatchMask
from lazyneuron.measure.sparsity import BlockSparsity, PredictedGain, UnionDensity
from lazyneuron.measure.tally import UNION_SIZES, Tally, Tokens

# kinds whose value is nonzero exactly where the pre-activation is positive
_FIRES_IF_POSITIVE = frozenset({"relu", "relu6", "jsrelu"})


class BlockWatch:
    """What one block was seen to do.

    It only looks: nothing enters a graph that autograd is building, and no random number is used up.

    Args:
        model: the model that the block was found in.
        block: the block.
        threshold: activations of at most this magnitude count as zero; None counts exact zeros only.
        forecast: forecast what fires from the moments of the pre-activations, or None.
    """

    def __init__(
        self, model: nn.Module, block: MLPBlock, threshold: float | None = None, *, forecast: Law | None = None
    ) -> None:
        self.block = block
        self.threshold = threshold
        self.mask = BatchMask(None)
        self.on = True  # False counts nothing, though it is watching
        self.leading: tuple[int, ...] = ()
        self.padding = NO_MASK
        self.notes: dict[str, None] = {}
        self.tally: Tally | None = None
        self.reads_first = (block.gate is not None and not block.rectifies_up) or _dropping(model, block)
        self.law = forecast
        self.moments = Moments() if forecast is not None and self._can_forecast() else None
        self.fires_if_positive = block.activation.kind in _FIRES_IF_POSITIVE and not threshold

    def watching(self) -> contextlib.AbstractContextManager[None]:
        """Count in the body."""
        return recording(
            [self.block],
            pre_activations=self._count_pre_activations if self._looks_at_first() else None,
            hidden=None if self.reads_first else self._count_hidden,
        )

    def _looks_at_first(self) -> bool:
        return self.reads_first or not self.fires_if_positive or self.moments is not None

    def _can_forecast(self) -> bool:
        reason = why_not(self.block)
        if reason is not None:
            self.notes[reason] = None
        return reason is None

    def _count_pre_activations(self, _: MLPBlock, value: Any) -> None:
        admitted = self._admit(value)
        if admitted is None:
            return
        z, tally, tokens = admitted
        if self.moments is not None:
            self.moments.add(z, tokens.real)
            if self.fires_if_positive and not self.reads_first:
                return
        positive = z > 0
        if self.reads_first:
            tally.add_fired(positive if self.fires_if_positive else self._fired(self._activated(z)), tokens)
        if not self.fires_if_positive:
            tally.add_positive(positive, tokens)

    def _count_hidden(self, _: MLPBlock, value: Any) -> None:
        admitted = self._admit(value)
        if admitted is not None:
            h, tally, tokens = admitted
            tally.add_fired(self._fired(h), tokens)

    def _activated(self, z: Tensor) -> Tensor:
        if self.block.activation.function is None:
            return self.block.activation(z)
        devices = [z.device.index or 0] if z.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):  # an unknown function may draw, and may work in place
            return self.block.activation(z.clone())

    def _fired(self, h: Tensor) -> Tensor:
        # negated, so that NaN counts as firing
        return h != 0 if self.threshold is None else ~(h.abs() <= self.threshold)

    def _admit(self, value: Any) -> tuple[Tensor, Tally, Tokens] | None:
        """The activation with its tally and tokens; None, and a note, when it is not one of this block's."""
        if not self.on:
            return None
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
        """What was counted so far."""
        block = self.block
        totals = (self.tally or Tally(block.d_hidden, torch.device("cpu"))).totals()
        density = int(totals.fired.sum()) / (totals.tokens * block.d_hidden) if totals.tokens else None
        unions = tuple(
            UnionDensity(tokens=t, density=u, windows=w) for t, (u, w) in zip(UNION_SIZES, totals.unions, strict=True)
        )
        if not totals.calls and not self.notes:
            self.notes["It did not run."] = None
        forecast = self._forecast(totals.fired, totals.tokens)
        if forecast is None and self.moments is not None and totals.tokens:
            self.notes[NOT_FINITE] = None
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
            forecast=forecast,
        )

    def _forecast(self, fired: Tensor, tokens: int) -> Forecast | None:
        if self.moments is None or self.law is None or not tokens:
            return None
        return self.moments.forecast(self.block, self.law, fired.double() / tokens)


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
