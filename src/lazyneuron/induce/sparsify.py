"""The verb: change a model, in place and undoably, so that its neurons can fall silent."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

from torch import nn

from lazyneuron.blocks.block import MLPBlock
from lazyneuron.blocks.find import find
from lazyneuron.core.arguments import check_batches, check_model
from lazyneuron.core.errors import NoBlocksError
from lazyneuron.core.receipt import BlockChange, Receipt
from lazyneuron.core.replay import replays
from lazyneuron.core.undo import Transaction, transaction
from lazyneuron.induce.recipe import Config, Plan, Recipe, check_recipe, propose, recipe_from_data
from lazyneuron.induce.saving import watch_saving_


def plan(model: nn.Module, config: Config, *, blocks: Sequence[MLPBlock] | None = None) -> Plan:
    """Say what :func:`lazyneuron.sparsify_` would do, without doing it.

    Args:
        model: any model.
        config: what to change.
        blocks: the blocks that it may change, as ``find_blocks`` gave them; None finds all.

    Returns:
        One entry for each MLP block found; of a chain, one for each block and recipe, as if each came alone.

    Raises:
        NoBlocksError: the model has no MLP block.
        ConfigError: ``config`` is no recipe, or ``blocks`` are of another model or outdated.
    """
    check_recipe(config)
    plans = [propose(model, recipe, blocks=blocks)[0] for recipe in config.steps]
    return Plan(
        changes=tuple(change for one in plans for change in one.changes),
        unmatched=tuple(pattern for one in plans for pattern in one.unmatched),
    )


def sparsify_(
    model: nn.Module,
    config: Config,
    *,
    batches: Iterable[Any] | None = None,
    blocks: Sequence[MLPBlock] | None = None,
) -> Receipt:
    """Change a model's MLP blocks in place by a recipe, all that its plan names or none.

    Args:
        model: any model.
        config: what to change: a :class:`lazyneuron.induce.Recipe`, or a :class:`lazyneuron.induce.Chain` of several.
        batches: inputs to calibrate on; :class:`lazyneuron.induce.Threshold` needs them, the others do not use them.
        blocks: the blocks that may change, as ``find_blocks`` gave them; None finds all. The recipe's patterns choose
            among them.

    Returns:
        The receipt; :func:`lazyneuron.restore_` takes the change back bitwise (weights trained in between stay).

    Raises:
        NoBlocksError: the model has no MLP block, or there is none to change, as when the verb is applied twice.
        ConfigError: ``config`` is no recipe, a pattern of it hits nothing, another change in force forbids it, or
            ``blocks`` are of another model or outdated.
        DataError: ``batches`` is a single batch, or no iterable.

    Cost: none at run time beyond the new function's own.
    """
    check_model(model)
    check_recipe(config)
    if batches is not None:
        check_batches(batches)
    draft = Receipt(verb="sparsify_", config={}, changes=())
    with transaction(model, draft.id) as change:
        made: list[_Made] = []
        for recipe in config.steps:
            made.append(_apply(change, recipe, batches, _as_now(model, blocks) if made else blocks))
        change.receipt = dataclasses.replace(
            draft,
            config=config.with_steps(tuple(one.recipe for one in made)).to_data(),
            changes=tuple(c for one in made for c in one.changes),
            notes=tuple(note for one in made for note in one.notes),
        )
        watch_saving_(change, change.receipt, only_activations=all(one.recipe.only_activations for one in made))
    return change.receipt


@replays("sparsify_")
def sparsify_again_(model: nn.Module, receipt: Receipt) -> Receipt:
    """Apply the recipe of a saved receipt to a fresh model, without data.

    Raises:
        CheckpointError: the recipe is not known, or not what it wrote.
        As :func:`sparsify_`.
    """
    return sparsify_(model, recipe_from_data(receipt.config))


@dataclasses.dataclass(frozen=True)
class _Made:
    recipe: Recipe
    changes: tuple[BlockChange, ...]
    notes: tuple[str, ...]


def _as_now(model: nn.Module, blocks: Sequence[MLPBlock] | None) -> Sequence[MLPBlock] | None:
    """The same blocks after a recipe has changed them."""
    names = None if blocks is None else {block.name for block in blocks}
    return None if names is None else [block for block in find(model).blocks if block.name in names]


def _apply(
    change: Transaction, recipe: Recipe, batches: Iterable[Any] | None, given: Sequence[MLPBlock] | None
) -> _Made:
    """Apply one recipe within a transaction, which the caller rolls back when this raises."""
    proposal, blocks = propose(change.model, recipe, blocks=given)
    if not proposal.replaced:
        reasons = sorted({c.reason for c in proposal.changes if c.block in blocks})
        raise NoBlocksError(
            f"There is nothing to change in the {len(blocks)} MLP blocks ({' '.join(reasons)}); "
            "choose other blocks or another activation."
        )
    fitted = recipe.fit(change.model, [blocks[name] for name in proposal.replaced], batches=batches)
    for name in proposal.replaced:
        fitted.recipe.install_(change, blocks[name], fitted=fitted.found.get(name))
    fitted.recipe.finish_(change)
    unmatched = (f"The pattern {p!r} matched no block." for p in proposal.unmatched)
    return _Made(
        recipe=fitted.recipe,
        changes=tuple(
            dataclasses.replace(c, details={**c.details, **fitted.details.get(c.block, {})}) for c in proposal.changes
        ),
        notes=(*unmatched, *recipe.notes(), *fitted.notes),
    )
