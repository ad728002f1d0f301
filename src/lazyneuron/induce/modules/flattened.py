"""Whether a block is handed its tokens without their positions."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from lazyneuron.blocks.block import MLPBlock
from lazyneuron.blocks.borrowed import borrowed
from lazyneuron.blocks.find.linears import find_linears
from lazyneuron.blocks.find.trace import trace_locally
from lazyneuron.blocks.recorder import recording


def takes_flattened(model: nn.Module, block: MLPBlock) -> bool:
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

    def inside(_: MLPBlock, x: Any) -> None:
        if seen and isinstance(x, Tensor):
            seen[-1] = (seen[-1][0], x.ndim)

    with borrowed(model, bare=True):
        handle = around.register_forward_pre_hook(outside, with_kwargs=True)
        try:
            with recording([block], inputs=inside):
                sites = {n: s for n, s in find_linears(model).items() if s.module in set(around.modules())}
                trace_locally(name, around, sites, width=block.d_in)
        finally:
            handle.remove()
    return (3, 2) in seen
