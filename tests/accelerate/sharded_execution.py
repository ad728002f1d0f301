"""Cases of blocks whose neurons are spread over processes: ``torchrun -m tests.accelerate.sharded_execution FILE``."""

from __future__ import annotations

import copy
import json
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

import lazyneuron as lazy
from lazyneuron.core.errors import NoBlocksError

WIDTH, HIDDEN = 32, 192


class Mlp(nn.Module):
    def __init__(self, *, gated: bool, bias: bool) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(WIDTH, HIDDEN, bias=bias), nn.Linear(HIDDEN, WIDTH, bias=bias)
        self.gate = nn.Linear(WIDTH, HIDDEN, bias=bias) if gated else None
        self.act = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.down(self.act(self.up(x)) if self.gate is None else self.act(self.gate(x)) * self.up(x))


class Layer(nn.Module):
    def __init__(self, *, gated: bool, bias: bool) -> None:
        super().__init__()
        self.norm, self.mlp = nn.LayerNorm(WIDTH), Mlp(gated=gated, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.mlp(self.norm(x))


def model_of(dtype: torch.dtype = torch.float32, *, layers: int = 2, bias: bool = True) -> nn.Module:
    """Plain and gated layers in turn, of which few neurons fire; the same in every process."""
    torch.manual_seed(0)
    model = nn.Sequential(*(Layer(gated=bool(k % 2), bias=bias) for k in range(layers))).to(dtype)
    if bias:
        with torch.no_grad():
            for layer in model:
                (layer.mlp.up if layer.mlp.gate is None else layer.mlp.gate).bias.sub_(1.0)
    return model.eval().requires_grad_(False)


def rows(dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(3, 7, WIDTH, generator=torch.Generator().manual_seed(1)).to(dtype)


def spread(model: nn.Module, **styles: Any) -> nn.Module:
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    for layer in model:
        names = ["up"] + ([] if layer.mlp.gate is None else ["gate"])
        plan = {name: ColwiseParallel() for name in names} | {"down": RowwiseParallel()} | styles
        parallelize_module(layer.mlp, mesh, plan)
    return model


def accelerated(dtype: torch.dtype = torch.float32, *, bias: bool = True) -> nn.Module:
    model = model_of(dtype, bias=bias)
    blocks = lazy.find_blocks(model)
    spread(model)
    lazy.accelerate_(model, [rows(dtype)], blocks=blocks, impl="native")
    return model


def off(model: nn.Module, wanted: Tensor, x: Tensor) -> float:
    with torch.no_grad():
        return float((model(x).double() - wanted.double()).abs().max() / wanted.double().abs().max())


def outputs() -> dict[str, float]:
    found = {}
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        for bias in (True, False):
            wanted = model_of(dtype, bias=bias)(rows(dtype))
            found[f"{dtype} {bias}"] = off(accelerated(dtype, bias=bias), wanted, rows(dtype))
    return found


def counted() -> list[list[float | None]]:
    model = accelerated()
    model(rows())
    model(rows()[0, 0])
    return [[b.calls, b.sparse_calls, b.computed, b.fired] for b in lazy.status(model).blocks]


def density() -> list[Any]:
    plain, sharded = model_of(), model_of()
    blocks = lazy.find_blocks(sharded)
    spread(sharded)
    both = [lazy.measure(plain, [rows()]), lazy.measure(sharded, [rows()], blocks=blocks)]
    return [[b.density for b in report.blocks] for report in both]


def restored() -> list[Any]:
    plain, model = model_of(), model_of()
    blocks = lazy.find_blocks(model)
    spread(model)
    before = model(rows())
    receipt = lazy.accelerate_(model, [rows()], blocks=blocks, impl="native")
    lazy.restore_(model, receipt)
    return [bool(torch.equal(model(rows()), before)), off(model, plain(rows()), rows())]


def followed() -> list[float]:
    """After an optimiser's step, an assignment in place, and loading: what the plain model then gives."""
    found = []
    plain, model = model_of(), accelerated()
    model(rows())
    for m in (plain, model):
        m.requires_grad_(True)
        optimizer = torch.optim.SGD(m.parameters(), 0.5, foreach=False)
        m(rows()).square().mean().backward()
        optimizer.step()
        m.requires_grad_(False)
    found.append(off(model, plain(rows()), rows()))
    for m in (plain, model):
        for layer in m:
            layer.mlp.up.weight.mul_(-0.5)
    found.append(off(model, plain(rows()), rows()))
    weights = {k: 1.5 * v for k, v in model.state_dict().items()}
    model.load_state_dict(weights, assign=True)
    plain.load_state_dict({k: 1.5 * v for k, v in plain.state_dict().items()})
    found.append(off(model, plain(rows()), rows()))
    return [*found, lazy.status(model).blocks[0].last]


def differentiated() -> list[Any]:
    plain, model = model_of().requires_grad_(True), accelerated().requires_grad_(True)
    for m in (plain, model):
        m(rows()).square().mean().backward()
    grads = [layer.mlp.down.weight.grad for layer in (plain[0], model[0])]
    training = accelerated().train()
    return [
        float((grads[0] - grads[1].full_tensor()).abs().max() / grads[0].abs().max()),
        lazy.status(model).blocks[0].sparse_calls,
        off(training, model_of()(rows()), rows()),
        lazy.status(training).blocks[0].sparse_calls,
    ]


def copied() -> list[Any]:
    """A copy has memory of its own: its shares are not those that were packed."""
    model = accelerated()
    twin = copy.deepcopy(model)
    for layer in twin:
        layer.mlp.down.weight.mul_(2.0)
    plain = model_of()
    for layer in plain:
        layer.mlp.down.weight.mul_(2.0)
    return [off(twin, plain(rows()), rows()), off(model, model_of()(rows()), rows())]


def refused() -> list[str]:
    """Other ways to spread, weights that only one process cannot pack, and blocks that were not found before."""

    def sequence(model: nn.Module) -> None:
        spread(model, up=ColwiseParallel(input_layouts=Shard(0)))

    def backwards(model: nn.Module) -> None:
        spread(model, up=RowwiseParallel())

    def broken(model: nn.Module) -> None:
        model[0].mlp.down.weight[0, -1] = float("nan")  # the last process's
        spread(model)

    found = []
    for change in (sequence, backwards, broken):
        model = model_of(layers=1)
        blocks = lazy.find_blocks(model)
        change(model)
        found.append(_sentence(model, blocks=blocks, impl="native"))
    found.append(_sentence(spread(model_of(layers=1))))
    return found


def _sentence(model: nn.Module, **options: Any) -> str:
    try:
        lazy.accelerate_(model, **options)
    except NoBlocksError as error:
        return str(error)
    return "not refused"


def main(path: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    cases = (outputs, counted, density, restored, followed, differentiated, copied, refused)
    with torch.no_grad():
        plain = {case.__name__: case() for case in cases if case not in (followed, differentiated)}
    own = plain | {case.__name__: case() for case in (followed, differentiated)}
    every: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(every, own)
    if dist.get_rank() == 0:
        path.write_text(json.dumps(every))
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
