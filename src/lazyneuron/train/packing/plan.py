"""Which blocks of a model can keep their hidden activations packed, and why the others cannot."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lazyneuron.blocks.block import LinearSite, MLPBlock
from lazyneuron.blocks.find import found_in
from lazyneuron.core.arguments import check_model
from lazyneuron.core.errors import ConfigError
from lazyneuron.core.receipt import BlockChange
from lazyneuron.ops.fired.operators import STEP, has_kernel
from lazyneuron.train.packing.source import is_known


@dataclasses.dataclass(frozen=True, kw_only=True)
class PackingPlan:
    """What :func:`lazyneuron.train.pack_activations_` would do.

    Attributes:
        matched: blocks that can keep what fires alone.
        skipped: the others, with the reason of each.
    """

    matched: tuple[MLPBlock, ...]
    skipped: tuple[BlockChange, ...]


def plan_packing(model: nn.Module, *, blocks: Sequence[MLPBlock] | None = None) -> PackingPlan:
    """Look which blocks can keep what fires alone; changes nothing.

    Raises:
        NoBlocksError: the model has no MLP block.
        ConfigError: a compiled model, or blocks that are not this model's as it is now.
    """
    check_model(model)
    if any("_orig_mod" in module._modules for module in model.modules()):
        raise ConfigError("The model holds a torch.compile'd module; pack the original model, then compile it.")
    found = found_in(model, blocks)
    reasons = [(block, why_not(block, model)) for block in found.blocks]
    refused = [(block.name, reason) for block, reason in reasons if reason is not None]
    refused += [(rejected.name, rejected.reason) for rejected in found.rejected]
    return PackingPlan(
        matched=tuple(block for block, reason in reasons if reason is None),
        skipped=tuple(BlockChange(block=name, action="skipped", reason=reason) for name, reason in refused),
    )


def stands_whole(block: MLPBlock) -> bool:
    """Has the whole block to be replaced, since its product or its activation stands in its own code?"""
    return block.gate is not None or block.site is None


def why_not(block: MLPBlock, model: nn.Module) -> str | None:
    """Why a block goes on keeping its hidden activations densely, as a sentence, or None."""
    reason = _why_not_at_all(block)
    if reason is not None:
        return reason
    if not targets(block):
        kind = type(block.down.module).__name__
        return f"The code of {block.down.name} ({kind}) is none of the linear layers whose gradient is known."
    if stands_whole(block):
        if block.container is None and block.gate is None:
            return "Its activation is written into a forward that does more than this block; hold it as a module."
        if block.container is None:
            return "Its gate is multiplied outside of any module of its own, so the product cannot be replaced."
        if block.refusal is not None:
            return block.refusal
        return None
    held = block.site.function if block.site is not None else None
    parts: list[Any] = [held, *targets(block), *(model.get_submodule(name) for name in block.dropouts)]
    if any("forward" in getattr(part, "__dict__", {}) for part in parts):
        return "Its execution was replaced already; restore that change first."
    if isinstance(held, nn.Module) and any(True for _ in held.parameters()):
        return f"Its activation ({type(held).__name__}) learns numbers of its own, which need their gradients."
    return None


def _why_not_at_all(block: MLPBlock) -> str | None:
    """What stands in the way in the activation or the weights, as a sentence, or None."""
    activation = block.activation
    if not activation.elementwise:
        return f"What fires under {activation.kind} depends on the whole token, so no interval says what is kept."
    if activation.kind == "other":
        return "Its activation is none of the known kinds, so where it is zero is not known."
    if activation.zero.empty:
        return f"Its activation ({activation.kind}) is zero nowhere; sparsify it first, for example with Relufy."
    weights = [w for w in (site.weight for site in block.linears) if isinstance(w, Tensor)]
    foreign = next((w for w in weights if type(w.data) is not Tensor), None)
    if foreign is not None:
        return f"Its weights are {type(foreign.data).__name__}s; pack the model before these are made."
    devices = sorted({str(w.device) for w in weights})
    if len(devices) > 1:
        return f"Its weights lie on several devices ({', '.join(devices)}); move the block to one."
    if not all(w.is_floating_point() for w in weights):
        return "Its weights are quantised, and have no gradients."
    return None


def why_dense(block: MLPBlock) -> str | None:
    """Why a packed block's products are dense at every density, as a sentence, or None."""
    weights = [site.weight for site in block.linears]
    if any(site.transposed or site.rows is not None for site in block.linears) or len(targets(block)) != 1:
        return "Its layers are merged, transposed or adapted, which the sparse products do not know."
    if any(type(site.module).forward is not nn.Linear.forward for site in block.linears):
        return "The code of its layers is none that the sparse products know."
    if not all(has_kernel(w.dtype, w.device, block.d_in, block.d_out) for w in weights):
        return f"The sparse products take float32 on the CPU and widths that {STEP} divides."
    if any("forward" in site.module.__dict__ for site in block.linears):
        return "The forward of one of its layers was replaced by other code."
    return None


def targets(block: MLPBlock) -> tuple[nn.Module, ...]:
    """The layers that take the hidden activation: ``down``, or those of an adapter around it."""
    module = block.down.module
    if block.down.transposed:
        return (module,)
    return tuple(m for m in module.modules() if type(m).forward is nn.Linear.forward and _width(m) == block.d_hidden)


def norm_before(block: MLPBlock, model: nn.Module) -> nn.Module | None:
    """The norm whose output need not be kept as the block's input, since it is made again from what the norm keeps."""
    norm = None if block.norm is None else model.get_submodule(block.norm)
    sites = firsts(block)
    own = all(site.transposed or type(site.module).forward is nn.Linear.forward for site in sites)
    replaced = any("forward" in site.module.__dict__ for site in sites)
    return norm if norm is not None and own and not replaced and is_known(norm) else None


def firsts(block: MLPBlock) -> tuple[LinearSite, ...]:
    """The layers that take the block's input; one that computes gate and up once."""
    sites = (block.up,) if block.gate is None else (block.gate, block.up)
    return tuple({site.module: site for site in sites}.values())


def _width(module: nn.Module) -> int:
    weight: Any = module.weight
    return int(weight.shape[1]) if isinstance(weight, torch.Tensor) and weight.dim() == 2 else -1
