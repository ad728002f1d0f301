"""Blocks whose neurons torch's tensor parallelism has spread over processes; for others nothing is imported."""

from __future__ import annotations

import sys
from typing import Any, cast

from torch import Tensor

from lazyneuron.blocks.block import LinearSite, MLPBlock


def is_dtensor(value: Any) -> bool:
    """Is this a tensor of several processes?"""
    known = sys.modules.get("torch.distributed.tensor")  # where it was never imported, there are none
    return known is not None and isinstance(value, known.DTensor)


def is_sharded(block: MLPBlock) -> bool:
    """Is a weight of the block a tensor of several processes?"""
    return any(is_dtensor(site.module._parameters.get("weight")) for site in block.linears)


def mesh_of(block: MLPBlock) -> Any:
    """The processes that share a sharded block, as a device mesh."""
    weight: Any = block.first.module._parameters["weight"]
    return weight.device_mesh


def local_part(site: LinearSite, name: str) -> Tensor | None:
    """What this process holds of a sharded layer's ``weight`` or ``bias``, in the same memory."""
    held: Any = site.module._parameters.get(name)
    return None if held is None else cast(Tensor, held._local_tensor.detach())


def arrived(x: Any) -> Any:
    """The tensor itself of one that a collective is still sending."""
    known = sys.modules.get("torch.distributed._functional_collectives")
    return x.wait() if known is not None and isinstance(x, known.AsyncCollectiveTensor) else x


def whole(block: MLPBlock, value: Any) -> Any:
    """A tensor of a sharded block as every process would see it alone; every process of the mesh has to ask.

    Args:
        block: a sharded block.
        value: a tensor of several processes, or (..., neurons) of this process's neurons; others are given back.
    """
    if is_dtensor(value):
        return value.full_tensor()
    weight = local_part(block.first, "weight")
    part = 0 if weight is None else weight.shape[0]
    if not isinstance(value, Tensor) or not value.dim() or value.shape[-1] != part or part == block.d_hidden:
        return arrived(value)
    from torch.distributed.tensor import DTensor, Shard

    mesh = mesh_of(block)
    return DTensor.from_local(arrived(value), mesh, [Shard(value.dim() - 1)], run_check=False).full_tensor()
