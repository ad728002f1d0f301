"""What autograd holds for an MLP block with packed activations and what the operating system counts, beside torch's."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
from typing import Any

import torch
from torch import Tensor, nn

from lazyneuron.core.record import Record
from lazyneuron.experiments.experiment import SEED, Experiment, Request, benchmark_record
from lazyneuron.report import markdown_table, provenance
from lazyneuron.train import pack_activations_

SHAPE = (768, 3072, 2048)  # features, neurons, tokens
DENSITIES = (0.03, 0.1, 0.3)

LAYERS = 8  # of the training whose memory the operating system counts


def block_at(width: int, hidden: int, *, density: float, arithmetic: str | None) -> nn.Module:
    """A ReLU block with Gaussian weights of which this share fires on Gaussian tokens, each token with its own."""
    torch.manual_seed(SEED)
    model = nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, width))
    nn.init.normal_(model[0].weight, std=width**-0.5)  # type: ignore[arg-type]
    nn.init.constant_(model[0].bias, -statistics.NormalDist().inv_cdf(1 - density))  # type: ignore[arg-type]
    if arithmetic is not None:
        pack_activations_(model, arithmetic=arithmetic)  # type: ignore[arg-type]
    return model


class _Sublayer(nn.Module):
    """A block as it stands in a transformer: ``r + mlp(norm(r))``, and ``r`` alone without the block."""

    def __init__(self, width: int, mlp: nn.Module | None) -> None:
        super().__init__()
        self.norm, self.mlp = nn.LayerNorm(width), mlp

    def forward(self, r: Tensor) -> Tensor:
        x: Tensor = self.norm(r)
        return r + (x if self.mlp is None else self.mlp(x))


def sublayer_at(shape: tuple[int, int, int], *, density: float, packed: bool) -> nn.Module:
    """The block of :func:`block_at` behind a norm."""
    model = _Sublayer(shape[0], block_at(shape[0], shape[1], density=density, arithmetic=None))
    if packed:
        pack_activations_(model)
    return model


def _kept_bytes(model: nn.Module, x: Tensor) -> tuple[int, int]:
    """Bytes that a forward leaves to its backward: without its input, and in all; parameters left out."""
    known = {t.untyped_storage().data_ptr() for t in model.parameters()}
    kept: dict[int, Tensor] = {}

    def note(t: Tensor) -> Tensor:
        kept[t.untyped_storage().data_ptr()] = t
        return t

    with torch.autograd.graph.saved_tensors_hooks(note, lambda t: t):
        model(x)
    places = {place: t.untyped_storage().nbytes() for place, t in kept.items() if place not in known}
    every = sum(places.values())
    return every - places.get(x.untyped_storage().data_ptr(), 0), every


def shares(shape: tuple[int, int, int], density: float) -> dict[str, float]:
    """What autograd holds for a block with packed activations, over what it holds for torch's own.

    ``kept_share``: of the hidden layer. ``kept_share_with_input``: with the input of a block for itself, whose input
    nobody else keeps. ``kept_share_in_layer``: all that the block adds, input included, to what the norm in front of it
    keeps anyway. ``kept_share_of_layer``: of norm and block together.
    """
    x = torch.randn(shape[2], shape[0], generator=torch.Generator().manual_seed(SEED)).requires_grad_()
    blocks = (block_at(*shape[:2], density=density, arithmetic=way) for way in (None, "dense"))
    (dense_hidden, dense), (packed_hidden, packed) = (_kept_bytes(block, x) for block in blocks)
    layers = (sublayer_at(shape, density=density, packed=pack) for pack in (False, True))
    norm, whole, whole_packed = (_kept_bytes(m, x)[1] for m in (_Sublayer(shape[0], None), *layers))
    return {
        "kept_share": round(packed_hidden / dense_hidden, 3),
        "kept_share_with_input": round(packed / dense, 3),
        "kept_share_in_layer": round((whole_packed - norm) / (whole - norm), 3),
        "kept_share_of_layer": round(whole_packed / whole, 3),
        "dense_kept_mib": round(dense / 2**20, 2),
    }


_PEAK = """
import sys, torch
from pathlib import Path
from torch import nn
from lazyneuron.core.memory import give_back_freed
from lazyneuron.experiments.bench.training_memory import sublayer_at
width, hidden, tokens, layers, packed = map(int, sys.argv[1:6])
shape = width, hidden, tokens
model = nn.Sequential(*(sublayer_at(shape, density=float(sys.argv[6]), packed=bool(packed)) for _ in range(layers)))
def step(n):
    model(torch.randn(n, width).requires_grad_()).square().sum().backward()
def held(what):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(what))
step(8)  # gradients and buffers of the libraries are there
give_back_freed()  # else the step would fill holes
Path("/proc/self/clear_refs").write_text("5")  # the most from now on
before = held("VmRSS")
step(tokens)
print(held("VmHWM") - before)
"""


# above so many bytes glibc's allocator gives memory back as it is freed: what is held is what is needed
_AT_ONCE = {"MALLOC_MMAP_THRESHOLD_": "100000"}


def peak(shape: tuple[int, int, int], density: float) -> dict[str, Any]:
    """By how many MiB a training step of several layers raises the memory that its process holds at most; on Linux."""
    width, hidden, tokens = shape
    dense, packed = (_raised_mib(shape, density, packed=packs) for packs in (False, True))
    return {
        "shape": f"{width} x {hidden}",
        "tokens": tokens,
        "density": density,
        "layers": LAYERS,
        "dense_mib": round(dense, 1),
        "packed_mib": round(packed, 1),
    }


def _raised_mib(shape: tuple[int, int, int], density: float, *, packed: bool) -> float:
    numbers = [*shape, LAYERS, int(packed), density]
    command = [sys.executable, "-c", _PEAK, *map(str, numbers)]
    found = subprocess.run(command, check=True, capture_output=True, text=True, env={**os.environ, **_AT_ONCE})
    return int(found.stdout) / 1024


def run(request: Request) -> Record:
    """Every density in float32: bytes that are counted, and the most memory of a process; no times."""
    shape, densities = ((96, 384, 512), (0.1,)) if request.quick else (SHAPE, DENSITIES)
    rows = []
    for number, density in enumerate(densities):
        request.advance(number / len(densities), f"density {density:g}")
        rows.append({**peak(shape, density), **shares(shape, density)})
    title = "Memory of training with packed activations"
    return benchmark_record("training-memory", title=title, threads=torch.get_num_threads(), rows=rows)


def _section(record: Record) -> str:
    table = [
        {
            "density": f"{row['density']:.2f}",
            "hidden layer": row["kept_share"],
            "block in a layer": row["kept_share_in_layer"],
            "block and norm": row["kept_share_of_layer"],
            "block for itself": row["kept_share_with_input"],
            "peak, MiB": f"{row['packed_mib']} of {row['dense_mib']}",
            "share": round(row["packed_mib"] / row["dense_mib"], 2) if row["dense_mib"] else None,
        }
        for row in record.data["rows"]
    ]
    return f"{markdown_table(table)}\n\n{provenance(record)}\n"


EXPERIMENT = Experiment(
    name="training-memory",
    title="Memory of training with packed activations",
    run=run,
    kind="benchmark",
    sections={"docs/train.md#training-memory": _section},
)
