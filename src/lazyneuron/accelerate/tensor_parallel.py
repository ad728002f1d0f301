"""Blocks that torch's tensor parallelism has spread over processes: each executes its share of the neurons.

``up`` (and ``gate``) sharded by rows and ``down`` by columns leave every process a block of its own with fewer neurons:
what it adds to the output follows from the whole input, and one sum over the processes makes the output of all. So a
share is packed, proved silent and skipped like any block; only the sum and ``down``'s bias come after it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn

from lazyneuron.accelerate.execution.execution import BlockExecution
from lazyneuron.accelerate.execution.inputs import wants_gradient
from lazyneuron.accelerate.path import DENSE
from lazyneuron.accelerate.prepare import Options, prepare
from lazyneuron.blocks.block import LinearSite, MLPBlock
from lazyneuron.blocks.borrowed import borrowed
from lazyneuron.blocks.sharded import arrived, is_dtensor, local_part, mesh_of
from lazyneuron.core.ranks import gather_from_all
from lazyneuron.core.receipt import BlockChange

_MOVED = "weights that are not those of the acceleration"
_PROBES, _CLOSE = 4, {torch.float32: 1e-4, torch.bfloat16: 5e-2, torch.float16: 5e-2}


def refusal(block: MLPBlock) -> str | None:
    """Why the shares of a sharded block cannot be executed one by one, as a sentence, or None."""
    from torch.distributed.tensor import Replicate, Shard

    if block.container is None:
        return "It is sharded and spread over several modules; only a module that is the block itself can be."
    if any(site.rows is not None or site.transposed for site in block.linears):
        return "It is sharded, and one layer computes gate and up together or is transposed; shard them apart."
    meshes = set()
    for site in block.linears:
        wanted = (Shard(1), Replicate()) if site is block.down else (Shard(0), Shard(0))
        for name, placement in zip(("weight", "bias"), wanted, strict=True):
            held: Any = site.module._parameters.get(name)
            if held is None and name == "bias":
                continue
            if not is_dtensor(held) or tuple(held.placements) != (placement,):
                return (
                    f"The {name} of {site.name} is not sharded as tensor parallelism shards it (up and gate by "
                    "ColwiseParallel, down by RowwiseParallel, on a mesh of one axis)."
                )
            if held.to_local().device.type != "cpu":
                return f"There is no kernel for the device {held.to_local().device.type!r}."
            meshes.add(held.device_mesh)
    if len(meshes) > 1:
        return "Its layers are sharded over different meshes."
    return None


class ShareExecution(BlockExecution):
    """Runs this process's share of a block's neurons, and sums over the processes.

    What makes the original path run (training, gradients, other modules) is the same in all processes, as they run the
    same program; whether a share runs densely or sparsely is each process's own affair.
    """

    whole: MLPBlock

    def __call__(self, x: Tensor) -> Tensor | None:
        """The block's output, or None for "run the original path", in all processes alike."""
        if torch.compiler.is_compiling():
            return None
        x = arrived(x)
        why = self._why_not(x) or (_MOVED if self._has_moved() else None)
        if why is not None:
            return self._decline(why)
        tokens = x.numel() // self.d_in
        bucket, due, dense = self._lookup(tokens)
        y = self._decline(DENSE) if dense else self._run(x, tokens, bucket, due)
        y = self.dense(x) if y is None else y
        dist.all_reduce(y, group=_group(self.whole))
        bias = local_part(self.whole.down, "bias")
        return y if bias is None else y.add_(bias)

    def _has_moved(self) -> bool:
        """Do the model's layers hold other memory than the share, as in a copy, or after loading by assignment?"""
        try:
            return any(
                cast(Tensor, local_part(site, name)).data_ptr() != parameter.data_ptr()
                for site, own in zip(self.whole.linears, self.block.linears, strict=True)
                for name, parameter in own.module._parameters.items()
                if parameter is not None
            )
        except AttributeError:  # it is gone, or no DTensor any more
            return True

    def _wants_gradient(self) -> bool:
        return wants_gradient(self.whole.linears)


def prepare_share(
    block: MLPBlock,
    inputs: Tensor | None,
    options: Options,
    isa: int,
    progress: Callable[[str], None],
    *,
    model: nn.Module,
) -> tuple[BlockChange, BlockExecution | None]:
    """As :func:`prepare`, for this process's share; every process of the mesh has to call it.

    A block that one process cannot execute is skipped by all, with that process's reason.
    """
    share = _Share(block)
    local = share.block(block)
    change, execution = prepare(local, inputs, options, isa, progress, model=share, kind=ShareExecution)
    reason = change.reason if execution is None else None
    if execution is not None:
        cast(ShareExecution, execution).whole = block
    reason = _first(reason, block)
    if reason is None and execution is not None:
        reason = _first(_trial(block, local, model), block)
    if reason is not None:
        return BlockChange(block=block.name, action="skipped", reason=reason), None
    return change, execution


class _Share(nn.Module):
    """The neurons of this process, in the memory that the model's layers hold; ``down`` without its bias."""

    def __init__(self, whole: MLPBlock) -> None:
        super().__init__()
        self.gate = None if whole.gate is None else _layer(whole.gate)
        self.up = _layer(whole.up)
        self.down = _layer(whole.down, bias=False)
        self.eval()

    def block(self, whole: MLPBlock) -> MLPBlock:
        """The share as a block."""
        return MLPBlock(
            name=whole.name,
            up=LinearSite(name=whole.up.name, module=self.up),
            down=LinearSite(name=whole.down.name, module=self.down),
            gate=None if whole.gate is None else LinearSite(name=whole.gate.name, module=cast(nn.Module, self.gate)),
            activation=whole.activation,
            rectifies_up=whole.rectifies_up,
            rectified_by_model=whole.rectified_by_model,
        )


def _layer(site: LinearSite, *, bias: bool = True) -> nn.Module:
    module = nn.Module()
    module.register_parameter("weight", nn.Parameter(cast(Tensor, local_part(site, "weight")), requires_grad=False))
    held = local_part(site, "bias") if bias else None
    module.register_parameter("bias", None if held is None else nn.Parameter(held, requires_grad=False))
    return module


def _trial(block: MLPBlock, local: MLPBlock, model: nn.Module) -> str | None:
    """Why the shares do not add up to what the block gives, or None; asks every process for the same rows."""
    assert block.container is not None
    weight = cast(Tensor, local_part(block.up, "weight"))
    rows = torch.randn(_PROBES, block.d_in, generator=torch.Generator().manual_seed(0)).to(weight.dtype)
    with borrowed(model, evaluate=True):
        try:
            wanted = arrived(model.get_submodule(block.container)(rows.clone()))
        except Exception as error:
            return f"Its module could not be called with rows of {block.d_in} features ({type(error).__name__})."
        got = local.forward(rows)
        dist.all_reduce(got, group=_group(block))
    bias = local_part(block.down, "bias")
    got = got if bias is None else got + bias
    if type(wanted) is not Tensor or wanted.shape != got.shape:
        return "It takes or gives parts of tokens in each process; only whole inputs and outputs can be."
    apart = float((wanted.double() - got.double()).abs().max())
    if apart > _CLOSE[weight.dtype] * max(1e-30, float(wanted.double().abs().max())):
        return "The sum of its shares is not what it gives; only whole inputs and outputs can be."
    return None


def _first(reason: str | None, block: MLPBlock) -> str | None:
    """The reason of the first process that has one."""
    return next((found for found in gather_from_all(reason, _group(block)) if found is not None), None)


def _group(block: MLPBlock) -> Any:
    return mesh_of(block).get_group()
