"""Why the execution of a block cannot be replaced, one sentence for each reason."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import nn

from lazyneuron.blocks.block import LinearSite, MLPBlock
from lazyneuron.blocks.splice.override import Override, Pass

HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def hooks_of(module: nn.Module, *, before: bool = True) -> bool:
    """Does the module carry hooks? ``before=False`` leaves out those that are called before its forward.

    A hook that says ``only_in_training = True`` does nothing in evaluation mode and does not count, nor does one that
    says ``known_to_block = True``: whoever executes the block does the same.
    """
    names = HOOKS if before else [name for name in HOOKS if name != "_forward_pre_hooks"]
    hooks = [hook for name in names for hook in (module.__dict__.get(name) or {}).values()]
    return any(
        not (getattr(hook, "only_in_training", False) or getattr(hook, "known_to_block", False)) for hook in hooks
    )


def refusal_of_linear(site: LinearSite, *, entrance: bool = False) -> str | None:
    """Why a layer's execution cannot be replaced, or None.

    Args:
        site: the layer.
        entrance: whether the layer itself is called with the block's input when the block is replaced, so that hooks
            before it are called as ever.
    """
    module = site.module
    if site.adapted:
        return f"{site.name} carries an adapter; merge it into the weight first."
    weight = module._parameters.get("weight")
    if weight is None and callable(getattr(type(module), "weight", None)):
        return f"The weight of {site.name} is quantised ({site.weight.dtype}), not floating point."
    if weight is None:
        return f"The weight of {site.name} is computed from other tensors; remove what computes it first."
    if weight.is_meta:
        return f"The weight of {site.name} is on the meta device; load it first."
    if not weight.is_floating_point():
        return f"The weight of {site.name} is quantised ({weight.dtype}), not floating point."
    if type(weight.data) is not torch.Tensor:
        kind = type(weight.data).__name__
        how = " (find the blocks before the model is sharded)" if kind == "DTensor" else ""
        return f"The weight of {site.name} is a {kind}; only plain tensors are supported{how}."
    if hooks_of(module, before=not entrance):
        return f"{site.name} has hooks, which would not be called; remove them first."
    return None


def refuse(block: MLPBlock, model: nn.Module, sites: Mapping[str, LinearSite]) -> str | None:
    """Why a block's execution cannot be replaced, or None.

    Args:
        block: the block.
        model: the model that it is in.
        sites: all linear layers of the model by name.
    """
    reasons = (
        _wrapped(block, model),
        *(refusal_of_linear(site, entrance=_is_entrance(site, block)) for site in block.linears),
        _replaced(block, model),
        _inner_hooks(block, model),
        _other_tensors(block, model),
        _spread(block, model, sites) if block.container is None else None,
    )
    return next((reason for reason in reasons if reason is not None), None)


def _is_entrance(site: LinearSite, block: MLPBlock) -> bool:
    return block.container is None and block.gate is None and site.name == block.up.name


def _ancestors(name: str, model: nn.Module) -> list[tuple[str, nn.Module]]:
    parts = name.split(".") if name else []
    names = [".".join(parts[:n]) for n in range(len(parts) + 1)]
    return [(n, model.get_submodule(n)) for n in names]


def _wrapped(block: MLPBlock, model: nn.Module) -> str | None:
    for site in block.linears:
        for name, module in _ancestors(site.name, model):
            called = f"the module {name!r}" if name else "the model"
            if "_fsdp_wrapped_module" in module._modules:
                return f"It is inside {called}, which is wrapped by FSDP and holds a part of the weights only."
            if "_orig_mod" in module._modules or module.__dict__.get("_compiled_call_impl") is not None:
                return f"It is inside {called}, which is compiled; change the original and compile it afterwards."
    return None


def _replaced(block: MLPBlock, model: nn.Module) -> str | None:
    inside = [] if block.container is None else [(block.container, model.get_submodule(block.container))]
    for name, module in (*inside, *((s.name, s.module) for s in block.linears)):
        forward = module.__dict__.get("forward")
        if isinstance(forward, Override):
            return "Its execution was replaced already; restore that change first."
        if forward is not None:
            return f"The forward of {name} was replaced by other code; undo that first."
    return None


def _inner_hooks(block: MLPBlock, model: nn.Module) -> str | None:
    """Hooks on parts of the block that would not be called any more, or would see something else."""
    named: list[tuple[str, nn.Module]] = []
    if block.container is not None:
        container = model.get_submodule(block.container)
        named = [(n, m) for n, m in container.named_modules(prefix=block.container) if m is not container]
    elif block.site is not None and isinstance(block.site.function, nn.Module):
        named = [(_activation_name(block), block.site.function)]
    named += [(name, model.get_submodule(name)) for name in block.dropouts]
    for name, module in named:
        if hooks_of(module):
            return f"{name} has hooks, which would not be called; remove them first."
    return None


def _other_tensors(block: MLPBlock, model: nn.Module) -> str | None:
    """Tensors that the block's code may read beside its weights: what they will be is not known."""
    own = {site.module for site in block.linears}
    site = block.site
    parts: list[nn.Module] = [] if block.container is None else list(model.get_submodule(block.container).modules())
    parts += [site.function] if site is not None and isinstance(site.function, nn.Module) else []
    for module in parts:
        for name, tensor in (*module._parameters.items(), *module._buffers.items()):
            if module not in own and tensor is not None:
                return f"Its {type(module).__name__} holds the tensor {name!r}, whose changes would not be taken in."
    return None


def _activation_name(block: MLPBlock) -> str:
    assert block.site is not None
    return f"{block.site.owner_name}.{block.site.attribute}".lstrip(".")


def _spread(block: MLPBlock, model: nn.Module, sites: Mapping[str, LinearSite]) -> str | None:
    """Reasons of blocks that no single module stands for."""
    if block.site is None:
        return "Its activation is written into a forward that does more than this block, so it cannot be passed by."
    if any(site.rows is not None for site in block.linears):
        return "Its gate and up are one layer, and no module stands for the whole block."
    if block.d_out == block.d_hidden:
        return "It is spread over several modules and its output is as wide as its hidden layer, so they look alike."
    if isinstance(block.site.function, Pass):
        return "Its execution was replaced already; restore that change first."
    for site in block.linears:
        others = [other.name for other in sites.values() if other.module is site.module and other.name != site.name]
        if others:
            return f"{site.name} is used as {others[0]} too; give each its own layer."
    return None


def clashes(block: MLPBlock, others: Sequence[MLPBlock], model: nn.Module) -> str | None:
    """Why a spread block cannot let its output pass through an activation module that is used elsewhere too."""
    site = block.site
    if block.container is not None or site is None or not isinstance(site.function, nn.Module):
        return None
    held = site.function
    sharing = [b for b in others if b.site is not None and b.site.function is held]
    known = {(id(b.site.owner), b.site.attribute) for b in sharing if b.site is not None}
    for name, owner in model.named_modules():
        for attribute, module in owner._modules.items():
            if module is held and (id(owner), attribute) not in known:
                return f"Its activation module is used as {f'{name}.{attribute}'.lstrip('.')} too; give each its own."
    for other in sharing:
        if other.d_hidden == block.d_out:
            return f"Its activation module is used by {other.name} too, whose hidden layer is as wide as its output."
    return None
