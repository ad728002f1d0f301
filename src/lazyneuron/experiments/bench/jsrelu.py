"""JSReLU beside ReLU, forward and backward in eager mode.

The ceiling is ReLU itself: both read the input and write the output, then read the gradient and one saved tensor and
write a gradient, five tensors in all.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from lazyneuron.core.record import Record
from lazyneuron.core.timing import compared, ratios
from lazyneuron.experiments.bench.correct import needs_kernels, refuse_wrong
from lazyneuron.experiments.experiment import SEED, Experiment, Request, benchmark_record
from lazyneuron.induce import JSReLU
from lazyneuron.ops.jsrelu.operator import plain
from lazyneuron.ops.jsrelu.reference import reference, reference_backward
from lazyneuron.report import markdown_table, provenance

SHAPES = ((512, 3072), (64, 3072), (2048, 4096))
_PASSES = 5


def _row(shape: tuple[int, int], dtype: torch.dtype, *, budget_s: float) -> dict[str, Any]:
    """Times of one shape; the answers are compared with the definition first."""
    generator = torch.Generator().manual_seed(SEED)
    inputs = [torch.randn(shape, generator=generator).to(dtype).requires_grad_() for _ in range(2)]
    gradient = torch.randn(shape, generator=generator).to(dtype)
    _check(inputs[0], gradient)

    def both_ways(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], object]:
        return lambda x: torch.autograd.grad(function(x), x, gradient)

    calls = {
        "relu": both_ways(torch.relu),
        "jsrelu": both_ways(JSReLU()),
        "capped": both_ways(JSReLU(cap=4.0)),
    }
    times = compared(calls, inputs, budget_s=budget_s, seed=SEED)
    slow = {"plain": both_ways(lambda x: plain(x, 1.0, float("inf")))}  # apart: it would leave the caches full
    times |= compared(slow, inputs, budget_s=budget_s / 3, seed=SEED)
    each = ratios(times["jsrelu"], times["relu"])
    moved = _PASSES * inputs[0].numel() * inputs[0].element_size()
    return {
        "shape": f"{shape[0]} x {shape[1]}",
        "dtype": str(dtype).removeprefix("torch."),
        "moved_mib": round(moved / 2**20, 1),
        **{f"{name}_us": round(t.median_us, 1) for name, t in times.items()},
        "relu_gbps": round(moved / times["relu"].median_us / 1e3, 1),
        "over_relu": round(each.median, 3),
        "over_relu_quartiles": [round(q, 3) for q in each.quartiles],
        "rounds": len(each.samples),
    }


def _check(x: Tensor, gradient: Tensor) -> None:
    y = JSReLU()(x)
    (slope,) = torch.autograd.grad(y, x, gradient)
    wanted = reference(x.detach(), 1.0, float("inf"))
    wanted_slope = reference_backward(gradient, x.detach(), 1.0, float("inf"))
    refuse_wrong("JSReLU", torch.equal(y, wanted) and torch.equal(slope, wanted_slope))


def run(request: Request) -> Record:
    """Every shape in float32, bfloat16 and float16.

    Raises:
        ImplUnavailable: the native kernels are not built.
    """
    needs_kernels()
    shapes, budget_s = (SHAPES[1:2], 0.2) if request.quick else (SHAPES, 3.0)
    cases = [(shape, dtype) for dtype in (torch.float32, torch.bfloat16, torch.float16) for shape in shapes]
    rows = []
    for number, (shape, dtype) in enumerate(cases):
        request.advance(number / len(cases), f"{shape[0]} x {shape[1]}, {dtype}")
        rows.append(_row(shape, dtype, budget_s=budget_s))
    title = "JSReLU beside ReLU, forward and backward"
    return benchmark_record("jsrelu", title=title, threads=torch.get_num_threads(), rows=rows)


def _section(record: Record) -> str:
    table = [
        {
            "shape": f"{row['shape']}, {row['dtype']}",
            "MiB moved": row["moved_mib"],
            "ReLU us": row["relu_us"],
            "JSReLU us": row["jsrelu_us"],
            "with a cap us": row["capped_us"],
            "plain torch us": row["plain_us"],
            "JSReLU over ReLU": row["over_relu"],
            "quartiles": " to ".join(map(str, row["over_relu_quartiles"])),
        }
        for row in record.data["rows"]
    ]
    return f"{markdown_table(table)}\n\n{provenance(record)}\n"


EXPERIMENT = Experiment(
    name="jsrelu",
    title="JSReLU beside ReLU, forward and backward",
    run=run,
    kind="benchmark",
    sections={"docs/induce.md": _section},
)
