"""A training step of one MLP block: torch's own, with packed activations, and by what fires alone.

The ceiling of the last is 6 / (1 + 5 p): of six products of a step only the first needs every neuron.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lazyneuron.core.record import Record
from lazyneuron.core.timing import compared, ratios
from lazyneuron.experiments.bench.correct import needs_kernels, refuse_wrong
from lazyneuron.experiments.bench.training_memory import block_at, sublayer_at
from lazyneuron.experiments.experiment import SEED, Experiment, Request, benchmark_record
from lazyneuron.report import markdown_table, provenance

SHAPES = ((384, 1536, 512), (768, 3072, 512), (768, 3072, 2048))  # features, neurons, tokens
DENSITIES = (0.03, 0.1, 0.3)
_WAYS = {"dense": None, "packed": "dense", "auto": "auto"}


def _step(model: nn.Module, x: Tensor) -> list[Tensor]:
    """Forward and backward; the gradients of the tokens and of all parameters."""
    wanted = [x, *model.parameters()]
    return list(torch.autograd.grad(model(x).square().sum(), wanted))


def _case(shape: tuple[int, int, int], density: float, *, budget_s: float) -> dict[str, Any]:
    """One shape at one density; the gradients are compared with torch's first."""
    width, hidden, tokens = shape
    models = {n: block_at(width, hidden, density=density, arithmetic=way) for n, way in _WAYS.items()}
    models |= {
        n: sublayer_at(shape, density=density, packed=pack) for n, pack in (("layer", False), ("in_layer", True))
    }
    generator = torch.Generator().manual_seed(SEED)
    inputs = [torch.randn(tokens, width, generator=generator).requires_grad_() for _ in range(2)]
    for name, reference in (("packed", "dense"), ("auto", "dense"), ("in_layer", "layer")):
        found, wanted = (_step(models[n], inputs[0]) for n in (name, reference))
        refuse_wrong(name, all(_close(a, b) for a, b in zip(found, wanted, strict=True)))
    with torch.no_grad():
        fires = float((models["dense"][0](inputs[0]) > 0).float().mean())  # type: ignore[index]
    calls = {name: lambda x, m=model: _step(m, x) for name, model in models.items()}
    times = compared(calls, inputs, budget_s=budget_s, seed=SEED)
    gains = ratios(times["dense"], times["auto"])
    return {
        "shape": f"{width} x {hidden}",
        "tokens": tokens,
        "density": round(fires, 4),
        **{f"{name}_ms": round(t.median_us / 1e3, 2) for name, t in times.items()},
        "packed_over_dense": round(ratios(times["packed"], times["dense"]).median, 3),
        "packed_over_dense_in_layer": round(ratios(times["in_layer"], times["layer"]).median, 3),
        "gain": round(gains.median, 2),
        "gain_quartiles": [round(q, 2) for q in gains.quartiles],
        "ceiling": round(6 / (1 + 5 * fires), 2),
        "rounds": len(gains.samples),
    }


def _close(a: Tensor, b: Tensor) -> bool:
    return bool((a - b).norm() <= 1e-4 * b.norm())


def run(request: Request) -> Record:
    """Every shape at every density in float32.

    Raises:
        ImplUnavailable: the native kernels are not built.
    """
    needs_kernels()
    shapes, densities, budget_s = (((96, 384, 128),), (0.1,), 0.2) if request.quick else (SHAPES, DENSITIES, 6.0)
    cases = [(shape, density) for shape in shapes for density in densities]
    rows = []
    for number, (shape, density) in enumerate(cases):
        request.advance(number / len(cases), f"{shape[0]} x {shape[1]}, {shape[2]} tokens, density {density:g}")
        rows.append(_case(shape, density, budget_s=budget_s))
    title = "A training step of one MLP block"
    return benchmark_record("training", title=title, threads=torch.get_num_threads(), rows=rows)


def _section(record: Record) -> str:
    table = [
        {
            "block, tokens": f"{row['shape']}, {row['tokens']}",
            "density": f"{row['density']:.2f}",
            "dense ms": row["dense_ms"],
            "packed ms": row["packed_ms"],
            "packed over dense": row["packed_over_dense"],
            "auto ms": row["auto_ms"],
            "dense over auto": row["gain"],
            "quartiles": " to ".join(map(str, row["gain_quartiles"])),
            "limit": row["ceiling"],
            "in a layer": row["packed_over_dense_in_layer"],
        }
        for row in record.data["rows"]
    ]
    return f"{markdown_table(table)}\n\n{provenance(record)}\n"


EXPERIMENT = Experiment(
    name="training",
    title="A training step of one MLP block, dense and by what fires",
    run=run,
    kind="benchmark",
    sections={"docs/train.md#training": _section},
)
