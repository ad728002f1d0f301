"""What the doubly biased recipe asks for after each optimiser step."""

from __future__ import annotations

import contextlib
from typing import Any

from torch import nn

from lazyneuron.core.arguments import check_model, check_switch
from lazyneuron.core.errors import ConfigError
from lazyneuron.core.numbers import real, whole
from lazyneuron.core.receipt import BlockChange, Receipt
from lazyneuron.core.replay import lives_in_weights
from lazyneuron.core.undo import Transaction, transaction
from lazyneuron.induce.modules.installed import INSTALLED, Installed
from lazyneuron.induce.modules.zeroth_bias import ZerothBias

lives_in_weights("project_")


def project_(model: nn.Module, *, step: int | None = None, record: bool = False) -> Receipt:
    """Move the ramps on, raise the norms' scales to their floors, then clip the zeroth biases; idempotent for a step.

    Args:
        model: a model that ``sparsify_`` made doubly biased.
        step: optimiser steps made so far; needed if the recipe has a ramp.
        record: make the projection undoable by ``restore_``. The projected parameters are then new objects, so an
            optimiser has to be built afterwards; not for use in a training loop.

    Returns:
        What moved in each block; with sharded parameters (FSDP2), in this process's part of it.

    Raises:
        ConfigError: the model carries no such recipe, ``step`` is no whole number >= 0, or there is a ramp and no step.

    Cost: an element-wise pass over scales and zeroth biases.
    """
    check_model(model)
    entries: tuple[Installed, ...] = model.__dict__.get(INSTALLED, ())
    if not entries:
        raise ConfigError("This model carries no recipe to project; apply sparsify_(model, DoublyBiased()) first.")
    if step is not None:
        step = whole(step, "The number of steps made", least=0)
    elif any(e.ramped is not None or (e.floor is not None and e.floor.ramp_steps) for e in entries):
        raise ConfigError("A ramp needs the number of steps made, at least 0; pass step= to project_.")
    draft = Receipt(verb="project_", config={"step": step, "record": record}, changes=())
    with transaction(model, draft.id) if record else contextlib.nullcontext() as change:
        changes = tuple(_project(entry, step, change) for entry in entries)
        receipt = Receipt(verb=draft.verb, config=draft.config, changes=changes, id=draft.id)
        if change is not None:
            change.receipt = receipt
    return receipt


def _project(entry: Installed, step: int | None, change: Transaction | None) -> BlockChange:
    details: dict[str, Any] = {}
    if entry.ramped is not None and step is not None:
        if change is not None:
            change.set(entry.ramped, "_mix", entry.ramped.mix)
        entry.ramped.mix = min(step / entry.mixing_steps, 1.0)
        details["mix"] = entry.ramped.mix
    if entry.floor is not None:
        _renew(change, entry.floor.norm, "weight")
        details |= {"floor": entry.floor.floor_at(step), "scales_moved": entry.floor.project_(step)}
    if entry.bias is not None and entry.norm is not None:
        _renew(change, entry.bias, "bias")
        weight = entry.norm._parameters["weight"]
        scale = None if weight is None else weight + entry.scale_offset
        details["bias_moved"] = entry.bias.clip_(scale if entry.bias.position == "input" else _fitting(entry, scale))
    return BlockChange(block=entry.block, action="projected", reason="Its constraints hold.", details=details)


def _fitting(entry: Installed, scale: Any) -> Any:
    """The scale, if the output is as wide as the norm; else 1."""
    return scale if entry.bias is not None and entry.bias.bias.shape[1] == len(scale) else None


def _renew(change: Transaction | None, module: nn.Module, name: str) -> None:
    if change is not None:
        old = module._parameters[name]
        assert old is not None
        change.set(module, name, nn.Parameter(old.detach().clone(), requires_grad=old.requires_grad))


def recipe_facts(model: nn.Module) -> list[dict[str, Any]]:
    """What the projection of each block is set to; JSON-able, and empty without a recipe.

    Two models with the same facts are projected alike at every step, which their weights alone do not tell.
    """
    entries: tuple[Installed, ...] = model.__dict__.get(INSTALLED, ())
    return [
        {
            "block": entry.block,
            "mixing_steps": entry.mixing_steps,
            "floor": None if entry.floor is None else [entry.floor.minimum, entry.floor.ramp_steps, entry.floor.bias],
            "zeroth_bias": None if entry.bias is None else [entry.bias.bound, entry.bias.position],
        }
        for entry in entries
    ]


def has_recipe(model: nn.Module) -> bool:
    """Is there something for :func:`project_` to do?"""
    return bool(model.__dict__.get(INSTALLED))


def parameter_groups(model: nn.Module, weight_decay: float, *, decay_zeroth_bias: bool = False) -> list[dict[str, Any]]:
    """Parameter groups for an optimiser, without weight decay on zeroth biases.

    Args:
        model: any model.
        weight_decay: for everything else.
        decay_zeroth_bias: decay the zeroth biases too.

    Returns:
        At most two groups, none of them empty, that hold every trainable parameter once: no group for a model in which
        everything is frozen, and optimisers refuse that.

    Raises:
        ConfigError: the model is no module, ``weight_decay`` is no finite number >= 0, or ``decay_zeroth_bias`` is
            neither True nor False.
    """
    check_model(model)
    weight_decay = real(weight_decay, "`weight_decay`", least=0)
    check_switch("`decay_zeroth_bias`", decay_zeroth_bias)
    free = {id(m.bias) for m in model.modules() if isinstance(m, ZerothBias) and not decay_zeroth_bias}
    trained = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if id(p) not in free], "weight_decay": weight_decay},
        {"params": [p for p in trained if id(p) in free], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]
