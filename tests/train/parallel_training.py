"""One training on one process or several: ``torchrun ... -m tests.train.parallel_training FOLDER WHICH KIND...``.

WHICH is ``first`` (ends with a checkpoint), ``second`` (resumes from it) or ``both``.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module
from torch.nn.parallel import DistributedDataParallel

import lazyneuron as lazy
from lazyneuron.induce import DensityController, Pressure, TargetDensity, parameter_groups, pre_activations
from lazyneuron.induce.training.pressure import total_pressure
from lazyneuron.train import BatchOrder, Checkpoints, LossGuard, SparsityMonitor, pack_activations_
from tests.train.networks import data, net

STEPS, RESUMED, BOUND = 12, 7, 0.03
PRESSURE = Pressure(target=TargetDensity(density=0.2, reach=0.5, strength=0.01, gain=0.2), penalty="l1")


def sparsified(*, ramp: int = 6) -> nn.Module:
    model = net(layers=2)
    with torch.no_grad():
        for layer in model.layers:  # below the floor, so that the projection has something to do
            layer.norm.weight.uniform_(-0.5, 1.2, generator=torch.Generator().manual_seed(2))
    lazy.sparsify_(model, dataclasses.replace(lazy.DoublyBiased.for_finetuning(ramp), bound=BOUND))
    return model


def train(
    model: nn.Module, wrapped: nn.Module, folder: Path, *, rank: int, processes: int, shares: bool, first: bool
) -> dict:
    """``shares``: each process has a share of the batch, else a share of the neurons."""
    x, y = data(samples=48)
    optimizer = torch.optim.AdamW(parameter_groups(model, 0.1), 1e-2, foreach=False)
    order = BatchOrder(len(x), batch_size=16, seed=0, **({"rank": rank, "processes": processes} if shares else {}))
    alike, apart = torch.Generator().manual_seed(7), torch.Generator().manual_seed(rank)
    controller, blocks = DensityController(PRESSURE.target), model.blocks
    parts = {"order": order, "alike": alike, "apart": apart, "controller": controller}
    checkpoints = Checkpoints(folder, model, optimizer=optimizer, **parts)
    done = checkpoints.resume_()
    resumed = _digest(model, optimizer)
    monitor, guard = model.watched
    losses: list[float] = []
    strengths: list[float] = []
    for step in range(done + 1, (RESUMED if first else STEPS) + 1):
        rows = next(order)
        with monitor.watching(step), pre_activations(blocks) as caught:
            loss = (wrapped(x[rows]) - y[rows]).square().mean()
        guard.check(loss, step=step)
        penalty, density = total_pressure(PRESSURE, blocks, caught=caught, mask=None)
        strengths.append(controller.update(density, progress=step / STEPS))
        (loss + strengths[-1] * penalty).backward()
        optimizer.step()
        optimizer.zero_grad()
        receipt = lazy.project_(model, step=step)
        total = loss.detach().clone()
        if processes > 1:
            dist.all_reduce(total)
        losses.append(float(total) / processes)
        moved = [change.details["scales_moved"] for change in receipt.changes]
    if first:
        checkpoints.save(RESUMED)
    draws = [torch.rand(1, generator=alike).item(), torch.rand(1, generator=apart).item()]
    every: list = [draws] * processes
    if processes > 1:
        dist.all_gather_object(every, draws)
    whole = {k: _full(v) for k, v in model.state_dict().items()}
    scales = [float(v.abs().min()) for k, v in whole.items() if k.endswith("norm.weight")]
    biases = [float(v.abs().max()) for k, v in whole.items() if "zeroth_bias" in k]
    densities = [r.mean_density for r in monitor.readings]
    return {
        "losses": losses,
        "strengths": strengths,
        "scales": scales,
        "biases": biases,
        "largest_scale": max(float(v.abs().max()) for k, v in whole.items() if k.endswith("norm.weight")),
        "densities": densities,
        "moved": moved,
        "sum": sum(float(v.double().abs().sum()) for v in whole.values()),
        "resumed": done,
        "state": _digest(model, optimizer) if first else resumed,
        "draws": every,
        "order": [order.epoch, order.batch],
    }


def _digest(model: nn.Module, optimizer: torch.optim.Optimizer) -> str:
    """Of every weight and moment, whole."""
    moments = [v for state in optimizer.state_dict()["state"].values() for v in state.values()]
    digest = hashlib.sha256()
    for value in (*model.state_dict().values(), *moments):
        digest.update(_full(value).numpy().tobytes())
    return digest.hexdigest()


def _full(value: Tensor) -> Tensor:
    value = value.detach()
    return value.full_tensor() if hasattr(value, "full_tensor") else value


def wrap(model: nn.Module, kind: str) -> nn.Module:
    """``ddp``, ``fsdp``, ``tensor`` or anything else for nothing; ``-dense`` behind it packs activations."""
    kind, _, arithmetic = kind.partition("-")
    if arithmetic:
        pack_activations_(model, arithmetic=arithmetic)
    model.__dict__["watched"] = SparsityMonitor(model, every=1), LossGuard(model)
    model.__dict__["blocks"] = lazy.find_blocks(model)
    if kind == "ddp":
        return DistributedDataParallel(model)
    if kind == "fsdp":
        mesh = init_device_mesh("cpu", (dist.get_world_size(),))
        for layer in model.layers:
            fully_shard(layer, mesh=mesh)
        fully_shard(model, mesh=mesh)
    if kind == "tensor":
        mesh = init_device_mesh("cpu", (dist.get_world_size(),))
        for layer in model.layers:
            parallelize_module(layer.mlp, mesh, {"0": ColwiseParallel(), "3": RowwiseParallel()})
    return model


def run(kind: str, folder: Path, *, rank: int = 0, processes: int = 1, which: str = "both") -> list[dict]:
    found = []
    for first in {"both": (True, False), "first": (True,), "second": (False,)}[which]:  # in fresh objects
        model = sparsified()
        wrapped = wrap(model, kind)
        shares = not kind.startswith("tensor")
        found.append(train(model, wrapped, folder, rank=rank, processes=processes, shares=shares, first=first))
    return found


def main(folder: Path, which: str, kinds: list[str]) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    rank, processes = dist.get_rank(), dist.get_world_size()
    for kind in kinds:
        found = run(kind, folder / kind, rank=rank, processes=processes, which=which)
        if rank == 0:
            (folder / f"{kind}.json").write_text(json.dumps(found))
    dist.barrier()  # no process leaves while another still talks to it
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3:])
