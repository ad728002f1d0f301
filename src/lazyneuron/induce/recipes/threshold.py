"""The recipe that needs no training: cut each block's small activations to exactly zero."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import nn

from lazyneuron.blocks.activation import Activation
from lazyneuron.blocks.block import MLPBlock
from lazyneuron.blocks.splice import replace_activation_
from lazyneuron.core.arguments import check_fraction, check_patterns
from lazyneuron.core.errors import ConfigError
from lazyneuron.core.undo import Transaction
from lazyneuron.induce.activations.neuron_threshold import NeuronThreshold
from lazyneuron.induce.recipe import Fitted, Recipe, register_recipe
from lazyneuron.induce.training import allocation
from lazyneuron.induce.training.samples import block_samples

_FORMS = {"relu": "fatrelu", "fatrelu": "fatrelu"} | {
    kind: f"thresholded_{base}" for base in ("silu", "gelu", "gelu_tanh") for kind in (base, f"thresholded_{base}")
}


@register_recipe
@dataclasses.dataclass(frozen=True, kw_only=True)
class Threshold(Recipe):
    """Magnitude thresholds, calibrated on a few batches; ``sparsify_(model, Threshold(...), batches=batches)``.

    Attributes:
        density: mean density to reach, in (0, 1), weighted by the numbers that each block reads; None for no goal.
        error: budget of the squared change of a block's output over its variance, block by block if ``allocate`` is
            ``"uniform"``, else their mean; None for no budget. At least one of both is given; with both, the density
            has to be met within the budget.
        criterion: ``"magnitude"`` of ``s``, one threshold for a block (CATS), which ``accelerate_`` runs; or
            ``"weighted"``, times the norm of the neuron's column of ``down`` and the size of its factor (WINA), a
            threshold for each neuron, which no kernel runs.
        allocate: ``"measured"`` gives each block the density at which error per byte saved is equal; ``"uniform"``.
        blocks: glob patterns of block names.
        thresholds: what a calibration found, by block; with it no batches are needed.

    Source: Lee et al. (CATS), 2024; Liu et al. (TEAL), 2025, for the greedy allocation; Chen et al. (WINA), 2025. Which
        inputs of ``up`` are small, as in TEAL, is not looked at: that skips columns, not neurons.
    """

    density: float | None = None
    error: float | None = None
    criterion: Literal["magnitude", "weighted"] = "magnitude"
    allocate: Literal["measured", "uniform"] = "measured"
    blocks: tuple[str, ...] = ("*",)
    thresholds: Mapping[str, float] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        check_patterns(self.blocks)
        if self.density is None and self.error is None:
            raise ConfigError("A Threshold recipe needs a goal; pass density=, error= or both.")
        if self.density is not None:
            check_fraction("density", self.density)
        if self.error is not None and not 0 < self.error < 1:
            raise ConfigError(f"`error` is a share of the output's variance between 0 and 1, got {self.error}.")
        if self.criterion not in ("magnitude", "weighted") or self.allocate not in ("measured", "uniform"):
            raise ConfigError(
                "`criterion` is 'magnitude' or 'weighted' and `allocate` is 'measured' or 'uniform', got "
                f"{self.criterion!r} and {self.allocate!r}."
            )

    def module_for(self, block: MLPBlock) -> Activation | NeuronThreshold:
        """The activation that a block gets; the limits of a weighted one come from its samples or a checkpoint."""
        threshold = self.thresholds[block.name]
        if self.criterion == "weighted":
            return NeuronThreshold(block.activation, torch.zeros(block.d_hidden, device=block.up.weight.device))
        return Activation(_FORMS[block.activation.kind], (threshold,))

    def names(self) -> Iterable[str]:
        """Those with a threshold."""
        return self.thresholds

    def refuses(self, model: nn.Module, block: MLPBlock, *, blocks: Sequence[MLPBlock]) -> str | None:
        """Why this block cannot be changed, or None."""
        kind = block.activation.kind
        if self.thresholds and block.name not in self.thresholds:
            return "The calibration left it as it is."
        if block.site is None:
            return f"Its activation ({kind}) is written into a forward and cannot be replaced."
        if kind not in _FORMS:
            return f"There is no thresholded form of its activation ({kind})."
        return None

    def describes(self, model: nn.Module, block: MLPBlock) -> str:
        """What becomes of a block."""
        return f"The small values of {block.activation.kind} are to become 0."

    def fit(self, model: nn.Module, blocks: Sequence[MLPBlock], *, batches: Iterable[Any] | None) -> Fitted:
        """Find the thresholds of these blocks, unless they are given.

        Raises:
            ConfigError: there are no batches to calibrate on, or the goal cannot be met.
            DataError: no tokens run through a block, or its output is constant or not finite.
        """
        if self.thresholds:
            return Fitted(recipe=self)
        if batches is None:
            raise ConfigError(
                "A Threshold recipe is calibrated on data; pass sparsify_(model, recipe, batches=batches)."
            )
        samples = block_samples(model, blocks, batches=batches)
        weighted = self.criterion == "weighted"
        worth = {b.name: allocation.neuron_weights(b, samples[b.name]) if weighted else None for b in blocks}
        levels = (*allocation.LEVELS, *(() if self.density is None else (self.density,)))
        curves = {b.name: allocation.curve(b, samples[b.name], worth=worth[b.name], levels=levels) for b in blocks}
        share = allocation.uniform if self.allocate == "uniform" else allocation.by_error_per_byte
        chosen = share(curves, density=self.density, error=self.error)
        allocation.check_met(chosen, curves, density=self.density, error=self.error)
        return Fitted(
            recipe=dataclasses.replace(self, thresholds={n: p.threshold for n, p in chosen.items()}),
            details={name: dataclasses.asdict(point) for name, point in chosen.items()},
            found={n: chosen[n].threshold / w.clamp_min(1e-30) for n, w in worth.items() if w is not None},
            notes=(_reached(chosen),),
        )

    def install_(self, change: Transaction, block: MLPBlock, *, fitted: Any) -> None:
        """Cut the block's small values; ``fitted`` holds each neuron's limit, for the weighted criterion."""
        cut = self.module_for(block)
        if isinstance(cut, NeuronThreshold):
            if fitted is not None:
                cut.limits.copy_(fitted)
            cut.training = change.model.training
        replace_activation_(change, block, cut)


def _reached(chosen: Mapping[str, allocation.Point]) -> str:
    density = sum(point.density for point in chosen.values()) / len(chosen)
    return (
        f"On the calibration data, each block by itself: mean density {density:.3f}, "
        f"output error {max(point.error for point in chosen.values()):.3g} at most."
    )
