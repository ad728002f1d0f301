"""The verb: change a model, in place and undoably, so that its neurons can fall silent."""

from __future__ import annotations

from torch import nn

from lazyneuron.blocks.find import find_blocks
from lazyneuron.blocks.splice import replace_activation_
from lazyneuron.core.errors import NoBlocksError
from lazyneuron.core.receipt import Receipt
from lazyneuron.core.undo import transaction
from lazyneuron.induce.relufy import Relufy, propose


def sparsify_(model: nn.Module, config: Relufy) -> Receipt:
    """Change the activation functions of a model's MLP blocks in place, all of them or none.

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
    blocks = {block.name: block for block in find_blocks(model)}
    proposal = propose(model, list(blocks.values()), config=config)
    if not proposal.replaced:
        reasons = sorted({change.reason for change in proposal.changes})
        raise NoBlocksError(
            f"There is nothing to change in the {len(proposal.changes)} MLP blocks ({' '.join(reasons)}); "
            "choose other blocks or another activation."
        )
    notes = tuple(f"The pattern {p!r} matched no block." for p in proposal.unmatched)
    receipt = Receipt(verb="sparsify_", config=config.to_data(), changes=proposal.changes, notes=notes)
    with transaction(model, receipt.id) as change:
        for name in proposal.replaced:
            replace_activation_(change, blocks[name], config.activation_of(name))
    return receipt
