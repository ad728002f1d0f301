"""The verb: change a model, in place and undoably, so that its neurons can fall silent."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import nn

from lazyneuron.blocks.block import MLPBlock
from lazyneuron.blocks.find import find_blocks
from lazyneuron.blocks.splice import replace_activation_
from lazyneuron.core.errors import NoBlocksError
from lazyneuron.core.receipt import Receipt
from lazyneuron.core.undo import transaction
from lazyneuron.induce.block_recipe import BlockRecipe, install_module_, propose_modules
from lazyneuron.induce.doubly_biased import DoublyBiased
from lazyneuron.induce.fit import propose_doubly_biased
from lazyneuron.induce.installed import add_hook_, install_, refuse_cache
from lazyneuron.induce.norms import with_norms
from lazyneuron.induce.relufy import Plan, Relufy, propose
from lazyneuron.induce.topk_recipe import KeepTop, propose_top

Recipe = Relufy | DoublyBiased | KeepTop | BlockRecipe


def recipe_from_data(data: Mapping[str, Any]) -> Recipe:
    """The recipe whose ``to_data`` wrote this.

    Raises:
        CheckpointError: the data are no known recipe.
    """
    known: dict[object, Callable[[Mapping[str, Any]], Recipe]] = {
        "DoublyBiased": DoublyBiased.from_data,
        "KeepTop": KeepTop.from_data,
    }
    return known.get(data.get("config"), Relufy.from_data)(data)


def plan(model: nn.Module, config: Recipe) -> Plan:
    """Say what :func:`lazyneuron.sparsify_` would do, without doing it.

    Args:
        model: any model.
        config: what to change.

    Returns:
        One entry for each MLP block found.

    Raises:
        NoBlocksError: the model has no MLP block.
    """
    return _propose(model, _blocks_for(model, config), config)


def _blocks_for(model: nn.Module, config: Recipe) -> list[MLPBlock]:
    blocks = find_blocks(model)
    return with_norms(model, blocks) if isinstance(config, DoublyBiased) else blocks


def _propose(model: nn.Module, blocks: Sequence[MLPBlock], config: Recipe) -> Plan:
    if isinstance(config, Relufy) or not blocks:
        return propose(model, blocks, config=config if isinstance(config, Relufy) else Relufy())
    if isinstance(config, KeepTop):
        return propose_top(blocks, config=config)
    if isinstance(config, DoublyBiased):
        return propose_doubly_biased(model, blocks, config=config)
    return propose_modules(model, blocks, config=config)


def _notes(config: Recipe) -> tuple[str, ...]:
    if not isinstance(config, DoublyBiased) or not config.zeroth_bias:
        return ()
    if config.per_position:
        return ("Positions are counted from the first token of each call, so left padding shifts them.",)
    return ("One zeroth bias serves all tokens; its gradient is a sum over them and says nothing about each.",)


def sparsify_(model: nn.Module, config: Recipe) -> Receipt:
    """Change a model's MLP blocks in place by a recipe, all that its plan names or none.

    Args:
        model: any model.
        config: what to change.

    Returns:
        The receipt; :func:`lazyneuron.restore_` takes the change back bitwise (weights trained in between stay).

    Raises:
        NoBlocksError: the model has no MLP block, or there is none to change, as when the verb is applied twice.
        ConfigError: a pattern of the config hits nothing, or another change in force forbids it.

    Cost: none at run time beyond the new function's own.
    """
    blocks = {block.name: block for block in _blocks_for(model, config)}
    proposal = _propose(model, list(blocks.values()), config)
    if not proposal.replaced:
        reasons = sorted({change.reason for change in proposal.changes})
        raise NoBlocksError(
            f"There is nothing to change in the {len(proposal.changes)} MLP blocks ({' '.join(reasons)}); "
            "choose other blocks or another activation."
        )
    notes = (*(f"The pattern {p!r} matched no block." for p in proposal.unmatched), *_notes(config))
    receipt = Receipt(verb="sparsify_", config=config.to_data(), changes=proposal.changes, notes=notes)
    with transaction(model, receipt.id) as change:
        for name in proposal.replaced:
            if isinstance(config, KeepTop):
                new = config.module_for(blocks[name]).train(model.training)
                replace_activation_(change, blocks[name], new)
            elif isinstance(config, Relufy):
                replace_activation_(change, blocks[name], config.activation_of(name))
            elif isinstance(config, DoublyBiased):
                install_(change, blocks[name], config)
            else:
                install_module_(change, blocks[name], config)
        if isinstance(config, DoublyBiased) and config.zeroth_bias and config.per_position and hasattr(model, "config"):
            add_hook_(change, model, refuse_cache)
    return receipt
