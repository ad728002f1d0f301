"""Which blocks of a model can be executed sparsely, and why the others cannot."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from torch import nn

from lazyneuron.accelerate.execution.freshness import unwatchable
from lazyneuron.accelerate.gpu.packing import why_not_here
from lazyneuron.accelerate.tensor_parallel import refusal
from lazyneuron.blocks import MLPBlock
from lazyneuron.blocks.find import found_in
from lazyneuron.blocks.identify import identify
from lazyneuron.blocks.sharded import is_sharded
from lazyneuron.core.arguments import check_model
from lazyneuron.core.errors import ConfigError
from lazyneuron.core.receipt import BlockChange
from lazyneuron.ops.sparse_mlp.packed import KERNEL_ACTIVATIONS


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """What :func:`lazyneuron.accelerate_` would do.

    Attributes:
        matched: blocks that can be executed sparsely.
        skipped: the others, with the reason of each.
    """

    matched: tuple[MLPBlock, ...]
    skipped: tuple[BlockChange, ...]


def plan_acceleration(model: nn.Module, example: Any = None, *, blocks: Sequence[MLPBlock] | None = None) -> Plan:
    """Look which blocks can be executed sparsely; changes nothing.

    Args:
        model: any model.
        example: one batch item, for models whose parts cannot be called alone.
        blocks: those to look at, as :func:`lazyneuron.find_blocks` found them in this model; None finds all of them.

    Raises:
        NoBlocksError: the model has no MLP block.
        ConfigError: a compiled model, or blocks that are not this model's as it is now.
    """
    check_uncompiled(model)
    found = found_in(model, blocks, example)
    for block in found.blocks if blocks is not None else ():
        _check_found(block)
    reasons = [(block, why_dense(block)) for block in found.blocks]
    refused = [(block.name, reason) for block, reason in reasons if reason is not None]
    refused += [(rejected.name, rejected.reason) for rejected in found.rejected]
    return Plan(
        matched=tuple(block for block, reason in reasons if reason is None),
        skipped=tuple(BlockChange(block=name, action="skipped", reason=reason) for name, reason in refused),
    )


def check_uncompiled(model: nn.Module) -> None:
    """Refuse what is no model, or holds a compiled one.

    Raises:
        ConfigError: it is so.
    """
    check_model(model)
    if any("_orig_mod" in module._modules for module in model.modules()):
        raise ConfigError("The model holds a torch.compile'd module; accelerate the original model, then compile it.")


def _check_found(block: MLPBlock) -> None:
    """Refuse a block that is executed elsewhere, or whose activation has other numbers than it was found with."""
    if any("forward" in linear.module.__dict__ for linear in block.linears):
        raise ConfigError(f"The execution of {block.name} is replaced already; restore that change first.")
    if block.site is not None and identify(block.site.function) != block.activation:
        raise ConfigError(f"The activation of {block.name} changed since the block was found; find the blocks anew.")


def why_dense(block: MLPBlock) -> str | None:
    """Why a block that keeps its weights runs densely whatever fires, as a sentence, or None."""
    if block.refusal is not None:
        return block.refusal
    if not block.activation.elementwise:
        kind = block.activation.kind
        return (
            f"What fires under {kind} depends on the whole token, so no neuron is proved silent; weights='int8' or "
            "'int4' reads the rows that its rule leaves."
        )
    if block.activation.kind == "other":
        return "Its activation is none of the known kinds, so where it is zero is not known."
    if block.activation.zero.empty:
        return f"Its activation ({block.activation.kind}) is zero nowhere; sparsify it first, for example with Relufy."
    if block.activation.kind not in KERNEL_ACTIVATIONS:
        return f"There is no kernel for its activation ({block.activation.kind})."
    if is_sharded(block):
        return refusal(block)
    devices = {site.weight.device.type for site in block.linears}
    return unwatchable(block) if devices == {"cpu"} else why_not_here(block)
