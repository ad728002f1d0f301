"""The protocol of recipes that put another module in a whole block's place, for rooms that ``induce`` does not know."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any, Protocol, runtime_checkable

from torch import nn

from lazyneuron.blocks.block import MLPBlock
from lazyneuron.blocks.splice import splice_
from lazyneuron.core.receipt import BlockChange
from lazyneuron.core.undo import Transaction
from lazyneuron.induce.relufy import Plan

CHILD = "lazyneuron_routed"


@runtime_checkable
class BlockRecipe(Protocol):
    """What :func:`lazyneuron.sparsify_` asks of such a recipe."""

    @property
    def blocks(self) -> tuple[str, ...]:
        """Glob patterns of block names."""
        ...

    def refuses(self, block: Any) -> str | None:
        """One sentence why this block cannot be replaced, or None."""
        ...

    def module_for(self, block: Any) -> nn.Module:
        """The module that computes this block from now on."""
        ...

    def to_data(self) -> dict[str, Any]:
        """JSON-able arguments."""
        ...


def propose_modules(model: nn.Module, blocks: Sequence[MLPBlock], *, config: BlockRecipe) -> Plan:
    """The plan of such a recipe for blocks that were found already."""
    names = [block.name for block in blocks]
    unmatched = tuple(p for p in config.blocks if not any(fnmatchcase(name, p) for name in names))
    changes = []
    for block in blocks:
        reason = config.refuses(block) or block.refusal or _taken(model, block)
        action = "replaced" if reason is None else "skipped"
        if not any(fnmatchcase(block.name, pattern) for pattern in config.blocks):
            action, reason = "skipped", "No pattern matches its name."
        said = reason or f"It is to be computed by what {config.to_data()['config']} makes of it."
        changes.append(BlockChange(block=block.name, action=action, reason=said))
    return Plan(changes=tuple(changes), unmatched=unmatched)


def _taken(model: nn.Module, block: MLPBlock) -> str | None:
    parts = block.up.name.split(".")
    homes = (model.get_submodule(".".join(parts[:k])) for k in range(len(parts) + 1))
    if any(CHILD in home._modules for home in homes):
        return "Another module computes it already; restore that change first."
    return None


def install_module_(change: Transaction, block: MLPBlock, config: BlockRecipe) -> None:
    """Let the recipe's module compute a block; it becomes a child of the block's container, or else of ``up``."""
    model = change.model
    home = block.up.module if block.container is None else model.get_submodule(block.container)
    module = config.module_for(block).train(home.training)
    splice_(change, block, module)
    change.set(home, CHILD, module)
