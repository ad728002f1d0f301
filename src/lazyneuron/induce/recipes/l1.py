"""The recipe that adds a penalty on hidden activations to a training's loss."""

from __future__ import annotations

import dataclasses
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lazyneuron.blocks.block import MLPBlock
from lazyneuron.core.arguments import check_patterns
from lazyneuron.core.errors import ConfigError, DataError
from lazyneuron.core.undo import Transaction
from lazyneuron.induce.recipe import Recipe, register_recipe
from lazyneuron.induce.training.penalty import hoyer_penalty, l1_penalty
from lazyneuron.induce.training.pressure import fitting
from lazyneuron.induce.training.schedule import Constant, Schedule

PENALISED = "_lazyneuron_penalised"


@register_recipe
@dataclasses.dataclass(frozen=True, kw_only=True)
class L1(Recipe):
    """Watch the hidden activations of MLP blocks in training; add ``added_loss(model)`` to the loss.

    What the model computes stays as it is. A smooth activation becomes small but never exactly 0 by a penalty: combine
    this with a rectifier, ``Chain((Relufy(), L1(...)))``.

    Attributes:
        strength: coefficient of the mean over blocks; a number, or a schedule such as
            :class:`lazyneuron.induce.Progressive`.
        penalty: ``"l1"``, or ``"hoyer"``, which is free of scale.
        weighted: count a neuron by the norm of its column of ``down``, so that moving scale from ``up`` to ``down``
            does not lower the penalty.
        blocks: glob patterns of block names.
    """

    strength: float | Schedule = 1e-3
    penalty: Literal["l1", "hoyer"] = "l1"
    weighted: bool = True
    blocks: tuple[str, ...] = ("*",)

    def __post_init__(self) -> None:
        check_patterns(self.blocks)
        if self.penalty not in ("l1", "hoyer"):
            raise ConfigError(f"`penalty` is 'l1' or 'hoyer', got {self.penalty!r}.")
        _ = self.schedule

    @property
    def schedule(self) -> Schedule:
        """The strength as a schedule."""
        return Constant(float(self.strength)) if isinstance(self.strength, int | float) else self.strength

    def of(self, block: MLPBlock, h: Tensor, *, mask: Tensor | None = None) -> Tensor:
        """The penalty of one block's hidden activation, without the strength."""
        weight = block.down.effective_weight.detach().float().norm(dim=0) if self.weighted else None
        penalty = l1_penalty if self.penalty == "l1" else hoyer_penalty
        return penalty(h.float(), mask=fitting(mask, h), weight=weight)

    def refuses(self, model: nn.Module, block: MLPBlock, *, blocks: Sequence[MLPBlock]) -> str | None:
        """Why this block cannot be watched, or None."""
        if any(catch.block.name == block.name for catch in model.__dict__.get(PENALISED, ())):
            return "A penalty watches it already; restore that change first."
        return None

    def describes(self, model: nn.Module, block: MLPBlock) -> str:
        """What becomes of a block."""
        return f"A {self.penalty} penalty watches it in training."

    def install_(self, change: Transaction, block: MLPBlock, *, fitted: Any) -> None:
        """Put the hook on one block."""
        catch, module, model = Catch(block, self), block.down.module, change.model
        change.set(module, "_forward_pre_hooks", OrderedDict(module._forward_pre_hooks))
        module.register_forward_pre_hook(catch)
        change.set(model, PENALISED, (*model.__dict__.get(PENALISED, ()), catch))


class Catch:
    """The hook before ``down``: keeps the hidden activations of the latest forwards in training mode."""

    only_in_training = True

    def __init__(self, block: MLPBlock, config: L1) -> None:
        self.block, self.config = block, config
        self.caught: list[Tensor] = []

    def __call__(self, module: nn.Module, args: tuple[Tensor, ...]) -> None:
        """Keep what has a gradient."""
        if module.training and args[0].requires_grad:
            self.caught.append(args[0])

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "caught": []}  # a copy of the model holds no graph


def added_loss(model: nn.Module, *, step: int | None = None, mask: Tensor | None = None) -> Tensor:
    """What the L1 recipes of a model add to the loss of the forwards since the last call.

    Args:
        model: a model that ``sparsify_(model, L1(...))`` watches, in training mode.
        step: optimiser steps made so far; needed if the strength has a schedule.
        mask: nonzero where a token is real; used where it has a block's token axes.

    Returns:
        A scalar with gradient: strength times the mean over blocks.

    Raises:
        ConfigError: no such recipe is in force, or its schedule needs a step.
        DataError: no block ran in training mode with gradients since the last call, or the penalty is not finite.
    """
    catches: tuple[Catch, ...] = model.__dict__.get(PENALISED, ())
    if not catches:
        raise ConfigError("This model carries no penalty; apply sparsify_(model, L1(...)) first.")
    terms = []
    for catch in catches:
        strength = catch.config.schedule.at(step)
        values = [catch.config.of(catch.block, h, mask=mask) for h in catch.caught]
        catch.caught = []
        if values:
            value = torch.stack(values).mean()
            if not bool(torch.isfinite(value)):
                raise DataError(f"The penalty of {catch.block.name} is not finite; go back to an earlier checkpoint.")
            terms.append(strength * value)
    if not terms:
        raise DataError(
            "No watched block ran with gradients since the last call; call the model in training mode first "
            "(under gradient checkpointing hidden activations are not there to be watched)."
        )
    return torch.stack(terms).mean()
