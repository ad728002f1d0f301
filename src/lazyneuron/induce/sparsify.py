"""The verb: change a model, in place and undoably, so that its neurons can fall silent."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from lazyneuron.blocks.block import MLPBlock
from lazyneuron.blocks.find import Found, find
from lazyneuron.blocks.rectify import rectify_up_
from lazyneuron.blocks.splice import replace_activation_
from lazyneuron.core.arguments import check_batches, check_model, described
from lazyneuron.core.errors import CheckpointError, ConfigError, NoBlocksError
from lazyneuron.core.receipt import BlockChange, Receipt
from lazyneuron.core.undo import Transaction, transaction
from lazyneuron.induce.block_recipe import BlockRecipe, install_module_, propose_modules
from lazyneuron.induce.chain import Chain
from lazyneuron.induce.doubly_biased import DoublyBiased
from lazyneuron.induce.fit import propose_doubly_biased
from lazyneuron.induce.installed import add_hook_, install_, refuse_cache
from lazyneuron.induce.l1 import L1, propose_l1, watch_
from lazyneuron.induce.neuron_threshold import NeuronThreshold
from lazyneuron.induce.norms import with_norms
from lazyneuron.induce.relufy import Plan, Relufy, propose
from lazyneuron.induce.saving import watch_saving_
from lazyneuron.induce.threshold import Calibrated, Threshold, calibrate, propose_thresholds
from lazyneuron.induce.topk_recipe import KeepTop, propose_top

Recipe = Relufy | DoublyBiased | KeepTop | Threshold | L1 | Chain | BlockRecipe


def recipe_from_data(data: Mapping[str, Any]) -> Recipe:
    """The recipe whose ``to_data`` wrote this.

    Raises:
        CheckpointError: the data are no known recipe.
    """
    known: dict[object, Callable[[Mapping[str, Any]], Recipe]] = {
        "DoublyBiased": DoublyBiased.from_data,
        "KeepTop": KeepTop.from_data,
        "Threshold": Threshold.from_data,
        "L1": L1.from_data,
        "Chain": _chain_from_data,
    }
    return known.get(data.get("config"), Relufy.from_data)(data)


def _chain_from_data(data: Mapping[str, Any]) -> Chain:
    try:
        return Chain(tuple(recipe_from_data(recipe) for recipe in data["recipes"]))
    except (KeyError, TypeError, AttributeError, ConfigError) as error:
        raise CheckpointError(f"This is not a chain of recipes ({error}); pass what Chain.to_data wrote.") from error


def plan(model: nn.Module, config: Recipe) -> Plan:
    """Say what :func:`lazyneuron.sparsify_` would do, without doing it.

    Args:
        model: any model.
        config: what to change.

    Returns:
        One entry for each MLP block found; of a chain, one for each block and recipe, as if each came alone.

    Raises:
        NoBlocksError: the model has no MLP block.
    """
    if isinstance(config, Chain):
        plans = [plan(model, recipe) for recipe in config.recipes]
        return Plan(
            changes=tuple(change for one in plans for change in one.changes),
            unmatched=tuple(pattern for one in plans for pattern in one.unmatched),
        )
    _check_recipe(config)
    found = _found_for(model, config)
    proposal = _propose(model, found.blocks, config)
    return dataclasses.replace(proposal, changes=(*proposal.changes, *_left_out(found)))


def _check_recipe(config: Any) -> None:
    if isinstance(config, type) or not isinstance(config, Recipe):
        known = "Relufy, DoublyBiased, KeepTop, Threshold, L1, RouteFFN or a Chain of them"
        raise ConfigError(f"A recipe is a {known}, got {described(config)}; pass one, such as lazyneuron.Relufy().")


def _found_for(model: nn.Module, config: Recipe) -> Found:
    found = find(model).or_raise()
    if isinstance(config, DoublyBiased):
        return dataclasses.replace(found, blocks=tuple(with_norms(model, found.blocks)))
    return found


def _left_out(found: Found) -> tuple[BlockChange, ...]:
    return tuple(BlockChange(block=r.name, action="skipped", reason=r.reason) for r in found.rejected)


def _propose(model: nn.Module, blocks: Sequence[MLPBlock], config: Recipe) -> Plan:
    if isinstance(config, Relufy):
        return propose(blocks, config=config)
    if isinstance(config, KeepTop):
        return propose_top(blocks, config=config)
    if isinstance(config, Threshold):
        return propose_thresholds(blocks, config=config)
    if isinstance(config, L1):
        return propose_l1(model, blocks, config=config)
    if isinstance(config, DoublyBiased):
        return propose_doubly_biased(model, blocks, config=config)
    assert isinstance(config, BlockRecipe)
    return propose_modules(model, blocks, config=config)


def _notes(config: Recipe) -> tuple[str, ...]:
    if not isinstance(config, DoublyBiased) or not config.zeroth_bias:
        return ()
    if config.per_position:
        return ("Positions are counted from the first token of each call, so left padding shifts them.",)
    return ("One zeroth bias serves all tokens; its gradient is a sum over them and says nothing about each.",)


def _reached(found: Calibrated) -> str:
    points = found.details.values()
    density = sum(p["density"] for p in points) / len(points)
    return (
        f"On the calibration data, each block by itself: mean density {density:.3f}, "
        f"output error {max(p['error'] for p in points):.3g} at most."
    )


def sparsify_(model: nn.Module, config: Recipe, *, batches: Iterable[Any] | None = None) -> Receipt:
    """Change a model's MLP blocks in place by a recipe, all that its plan names or none.

    Args:
        model: any model.
        config: what to change.
        batches: inputs to calibrate on; :class:`lazyneuron.induce.Threshold` needs them, the others do not use them.

    Returns:
        The receipt; :func:`lazyneuron.restore_` takes the change back bitwise (weights trained in between stay).

    Raises:
        NoBlocksError: the model has no MLP block, or there is none to change, as when the verb is applied twice.
        ConfigError: ``config`` is no recipe, a pattern of it hits nothing, or another change in force forbids it.
        DataError: ``batches`` is a single batch, or no iterable.

    Cost: none at run time beyond the new function's own.
    """
    check_model(model)
    _check_recipe(config)
    if batches is not None:
        check_batches(batches)
    draft = Receipt(verb="sparsify_", config={}, changes=())
    recipes = config.recipes if isinstance(config, Chain) else (config,)
    with transaction(model, draft.id) as change:
        made = [_apply(change, recipe, batches) for recipe in recipes]
        done = tuple(one.config for one in made)
        change.receipt = dataclasses.replace(
            draft,
            config=(Chain(done) if isinstance(config, Chain) else done[0]).to_data(),
            changes=tuple(c for one in made for c in one.changes),
            notes=tuple(note for one in made for note in one.notes),
        )
        watch_saving_(change, change.receipt)
    return change.receipt


@dataclasses.dataclass(frozen=True)
class _Made:
    config: Recipe
    changes: tuple[BlockChange, ...]
    notes: tuple[str, ...]


def _apply(change: Transaction, config: Recipe, batches: Iterable[Any] | None) -> _Made:
    """Apply one recipe within a transaction, which the caller rolls back when this raises."""
    model = change.model
    found = _found_for(model, config)
    blocks = {block.name: block for block in found.blocks}
    proposal = _propose(model, found.blocks, config)
    if not proposal.replaced:
        reasons = sorted({change.reason for change in proposal.changes})
        raise NoBlocksError(
            f"There is nothing to change in the {len(proposal.changes)} MLP blocks ({' '.join(reasons)}); "
            "choose other blocks or another activation."
        )
    notes = (*(f"The pattern {p!r} matched no block." for p in proposal.unmatched), *_notes(config))
    changes = (*proposal.changes, *_left_out(found))
    limits: Mapping[str, Tensor] = {}
    if isinstance(config, Threshold) and not config.thresholds:
        fitted = calibrate(model, [blocks[name] for name in proposal.replaced], config=config, batches=batches)
        config, limits = fitted.config, fitted.limits
        changes = tuple(
            dataclasses.replace(c, details={**c.details, **fitted.details.get(c.block, {})}) for c in changes
        )
        notes = (*notes, _reached(fitted))
    for name in proposal.replaced:
        _change_block(change, blocks[name], config, limits)
    if isinstance(config, DoublyBiased) and config.zeroth_bias and config.per_position and hasattr(model, "config"):
        add_hook_(change, model, refuse_cache)
    return _Made(config, changes, notes)


def _change_block(change: Transaction, block: MLPBlock, config: Recipe, limits: Mapping[str, Tensor]) -> None:
    if isinstance(config, Threshold):
        cut = config.module_for(block)
        if isinstance(cut, NeuronThreshold):
            cut.limits.copy_(limits.get(block.name, cut.limits))
            cut.training = change.model.training
        replace_activation_(change, block, cut)
    elif isinstance(config, KeepTop):
        replace_activation_(change, block, config.module_for(block).train(change.model.training))
    elif isinstance(config, L1):
        watch_(change, block, config)
    elif isinstance(config, Relufy):
        replace_activation_(change, block, config.activation_of(block.name))
        if config.rectify_up and not block.rectifies_up:
            rectify_up_(change, block)
    elif isinstance(config, DoublyBiased):
        install_(change, block, config)
    elif isinstance(config, BlockRecipe):
        install_module_(change, block, config)
