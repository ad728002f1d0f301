"""Whether the doubly biased recipe fits a block, and why not."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any

from torch import Tensor, nn

from lazyneuron.blocks.block import MLPBlock
from lazyneuron.blocks.linears import find_linears
from lazyneuron.blocks.quiet import quiet
from lazyneuron.blocks.trace import trace_locally
from lazyneuron.core.errors import ConfigError
from lazyneuron.core.receipt import BlockChange
from lazyneuron.induce.doubly_biased import DoublyBiased
from lazyneuron.induce.installed import CHILD, INSTALLED, length_of
from lazyneuron.induce.norm_floor import NormFloor
from lazyneuron.induce.relufy import Plan


def propose_doubly_biased(model: nn.Module, blocks: Sequence[MLPBlock], *, config: DoublyBiased) -> Plan:
    """The plan of a doubly biased change for blocks that were found already."""
    names = [block.name for block in blocks]
    unmatched = tuple(p for p in config.blocks if not any(fnmatchcase(name, p) for name in names))
    changes = []
    for block in blocks:
        reason = _misfit(model, block, blocks, config)
        action = "replaced" if reason is None else "skipped"
        parts = [
            *([f"{block.activation.kind} becomes JSReLU"] if config.jsrelu else []),
            *([_bias_sentence(model, config)] if config.zeroth_bias else []),
            *([f"the scales of {block.norm} get the floor {config.norm_floor}"] if config.norm_floor else []),
            *([f"training adds noise of strength {config.noise_rho}"] if config.noise_rho else []),
        ]
        details = {"norm": block.norm, "before": [block.activation.kind, *block.activation.parameters]}
        changes.append(
            BlockChange(block=block.name, action=action, reason=reason or "; ".join(parts) + ".", details=details)
        )
    return Plan(changes=tuple(changes), unmatched=unmatched)


def _bias_sentence(model: nn.Module, config: DoublyBiased) -> str:
    rows = f"{length_of(model, config)} positions" if config.per_position else "all positions alike"
    return f"a zeroth bias for {rows} is added on the {config.position} side"


def _misfit(model: nn.Module, block: MLPBlock, blocks: Sequence[MLPBlock], config: DoublyBiased) -> str | None:
    if not any(fnmatchcase(block.name, pattern) for pattern in config.blocks):
        return "No pattern matches its name."
    if any(entry.block == block.name for entry in model.__dict__.get(INSTALLED, ())):
        return "It is doubly biased already; restore that change first."
    if config.jsrelu and block.site is None:
        return f"Its activation ({block.activation.kind}) is written into a forward and cannot be replaced."
    if not config.zeroth_bias and config.norm_floor is None:
        return None
    if block.norm is None:
        return "No norm with scales was found in front of it; switch zeroth_bias and norm_floor off."
    sharing = [other.name for other in blocks if other.norm == block.norm and other is not block]
    if sharing:
        return f"Its norm {block.norm} also feeds {sharing[0]}; switch zeroth_bias and norm_floor off."
    return _misfit_of_norm(model, block, config)


def _misfit_of_norm(model: nn.Module, block: MLPBlock, config: DoublyBiased) -> str | None:
    assert block.norm is not None
    norm = model.get_submodule(block.norm)
    if CHILD in norm._modules:
        return f"Its norm {block.norm} holds a zeroth bias already; restore that change first."
    try:
        NormFloor(norm)
    except ConfigError as error:
        return str(error)
    if config.zeroth_bias and config.per_position:
        if any(isinstance(m, nn.MultiheadAttention) and not m.batch_first for m in model.modules()):
            return "The model takes (tokens, batch, width); build it with batch_first=True, or use per_position=False."
        if _flattened(model, block):
            return "It is given its tokens flattened, without their positions; use per_position=False."
    return None


def _flattened(model: nn.Module, block: MLPBlock) -> bool:
    """Does the smallest module around norm and block, given (1, tokens, width), hand ``up`` a matrix?"""
    assert block.norm is not None
    parts = list(zip(block.norm.split("."), block.up.name.split("."), strict=False))
    common = 0
    while common < len(parts) and parts[common][0] == parts[common][1]:
        common += 1
    name = ".".join(block.norm.split(".")[:common])
    around = model.get_submodule(name)
    seen: list[tuple[int, int]] = []

    def outside(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        tensors = [a for a in (*args, *kwargs.values()) if isinstance(a, Tensor)]
        seen.append((tensors[0].ndim if tensors else 0, 0))

    def inside(_: nn.Module, args: tuple[Tensor, ...]) -> None:
        if seen and args:
            seen[-1] = (seen[-1][0], args[0].ndim)

    with quiet(model):
        handles = [
            around.register_forward_pre_hook(outside, with_kwargs=True),
            block.up.module.register_forward_pre_hook(inside),
        ]
        try:
            sites = {n: s for n, s in find_linears(model).items() if s.module in set(around.modules())}
            trace_locally(name, around, sites, width=block.d_in)
        finally:
            for handle in handles:
                handle.remove()
    return (3, 2) in seen
