"""The recipe that needs no training: cut each block's small activations to exactly zero."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, Literal

import torch
from torch import nn

from lazyneuron.blocks.activation import Activation
from lazyneuron.blocks.block import MLPBlock
from lazyneuron.core.arguments import check_fraction, check_patterns
from lazyneuron.core.errors import CheckpointError, ConfigError
from lazyneuron.core.receipt import BlockChange
from lazyneuron.induce import allocation
from lazyneuron.induce.neuron_threshold import NeuronThreshold
from lazyneuron.induce.relufy import Plan
from lazyneuron.induce.samples import block_samples

_FORMS = {"relu": "fatrelu", "fatrelu": "fatrelu"} | {
    kind: f"thresholded_{base}" for base in ("silu", "gelu", "gelu_tanh") for kind in (base, f"thresholded_{base}")
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Threshold:
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

    def to_data(self) -> dict[str, Any]:
        """JSON-able arguments."""
        return {
            "config": "Threshold",
            **dataclasses.asdict(self),
            "blocks": list(self.blocks),
            "thresholds": dict(self.thresholds),
        }

    @staticmethod
    def from_data(data: Mapping[str, Any]) -> Threshold:
        """The config that :meth:`to_data` wrote.

        Raises:
            CheckpointError: the data are not such a config.
        """
        try:
            arguments = dict(data)
            if arguments.pop("config") != "Threshold":
                raise ValueError(f"its config is {data['config']!r}")
            return Threshold(**{**arguments, "blocks": tuple(arguments["blocks"])})
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(
                f"This is not a Threshold config ({error}); pass what Threshold.to_data wrote."
            ) from error


def propose_thresholds(blocks: Sequence[MLPBlock], *, config: Threshold) -> Plan:
    """The plan of a threshold change for blocks that were found already."""
    names = [block.name for block in blocks]
    patterns = (*config.blocks, *config.thresholds)
    unmatched = tuple(p for p in patterns if not any(fnmatchcase(name, p) for name in names))
    changes = []
    for block in blocks:
        kind = block.activation.kind
        action, reason = "replaced", f"The small values of {kind} are to become 0."
        if not any(fnmatchcase(block.name, pattern) for pattern in config.blocks):
            action, reason = "skipped", "No pattern matches its name."
        elif config.thresholds and block.name not in config.thresholds:
            action, reason = "skipped", "The calibration left it as it is."
        elif block.site is None:
            action, reason = "skipped", f"Its activation ({kind}) is written into a forward and cannot be replaced."
        elif kind not in _FORMS:
            action, reason = "skipped", f"There is no thresholded form of its activation ({kind})."
        details = {"before": [kind, *block.activation.parameters]}
        changes.append(BlockChange(block=block.name, action=action, reason=reason, details=details))
    return Plan(changes=tuple(changes), unmatched=unmatched)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Calibrated:
    """What a calibration found.

    Attributes:
        config: the recipe with its thresholds.
        details: density, error and threshold of each block.
        limits: the limits of each neuron by block, for the weighted criterion.
    """

    config: Threshold
    details: Mapping[str, Mapping[str, float]]
    limits: Mapping[str, torch.Tensor]


def calibrate(
    model: nn.Module, blocks: Sequence[MLPBlock], *, config: Threshold, batches: Iterable[Any] | None
) -> Calibrated:
    """Find the thresholds of these blocks.

    Raises:
        ConfigError: there are no batches to calibrate on, or the goal cannot be met.
        DataError: no tokens run through a block, or its output is constant or not finite.
    """
    if batches is None:
        raise ConfigError("A Threshold recipe is calibrated on data; pass sparsify_(model, recipe, batches=batches).")
    samples = block_samples(model, blocks, batches=batches)
    worth = {
        b.name: allocation.neuron_weights(b, samples[b.name]) if config.criterion == "weighted" else None
        for b in blocks
    }
    levels = (*allocation.LEVELS, *(() if config.density is None else (config.density,)))
    curves = {b.name: allocation.curve(b, samples[b.name], worth=worth[b.name], levels=levels) for b in blocks}
    share = allocation.uniform if config.allocate == "uniform" else allocation.by_error_per_byte
    chosen = share(curves, density=config.density, error=config.error)
    allocation.check_met(chosen, curves, density=config.density, error=config.error)
    details = {name: dataclasses.asdict(point) for name, point in chosen.items()}
    limits = {n: chosen[n].threshold / w.clamp_min(1e-30) for n, w in worth.items() if w is not None}
    found = dataclasses.replace(config, thresholds={n: p.threshold for n, p in chosen.items()})
    return Calibrated(config=found, details=details, limits=limits)
