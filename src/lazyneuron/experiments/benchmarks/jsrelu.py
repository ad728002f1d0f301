"""JSReLU beside ReLU, forward and backward in eager mode.

The ceiling is ReLU itself: both read the input and write the output, then read the gradient and one saved tensor and
write a gradient, five tensors in all.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lazyneuron.core.record import Record, write_text
from lazyneuron.core.timing import compared, ratios
from lazyneuron.induce import JSReLU
from lazyneuron.ops.jsrelu.native import available
from lazyneuron.ops.jsrelu.operator import plain
from lazyneuron.ops.jsrelu.reference import reference, reference_backward

SHAPES = ((512, 3072), (64, 3072), (2048, 4096))
SEED = 0
_PASSES = 5


def rows(dtype: torch.dtype) -> list[dict[str, Any]]:
    """Times of every shape; the answers are compared with the definition first."""
    found = []
    for shape in SHAPES:
        generator = torch.Generator().manual_seed(SEED)
        inputs = [torch.randn(shape, generator=generator).to(dtype).requires_grad_() for _ in range(2)]
        gradient = torch.randn(shape, generator=generator).to(dtype)
        _check(inputs[0], gradient)

        def both_ways(function: Callable[[Tensor], Tensor], gradient: Tensor = gradient) -> Callable[[Tensor], object]:
            return lambda x: torch.autograd.grad(function(x), x, gradient)

        calls = {
            "relu": both_ways(torch.relu),
            "jsrelu": both_ways(JSReLU()),
            "capped": both_ways(JSReLU(cap=4.0)),
        }
        slow = both_ways(lambda x: plain(x, 1.0, float("inf")))
        times = compared(calls, inputs, budget_s=3.0, seed=SEED)
        times |= compared({"plain": slow}, inputs, budget_s=1.0, seed=SEED)  # apart: it would leave the caches full
        each = ratios(times["jsrelu"], times["relu"])
        moved = _PASSES * inputs[0].numel() * inputs[0].element_size()
        found.append(
            {
                "shape": f"{shape[0]} x {shape[1]}",
                "dtype": str(dtype).removeprefix("torch."),
                "moved_mib": round(moved / 2**20, 1),
                **{f"{name}_us": round(t.median_us, 1) for name, t in times.items()},
                "relu_gbps": round(moved / times["relu"].median_us / 1e3, 1),
                "over_relu": round(each.median, 3),
                "over_relu_quartiles": [round(q, 3) for q in each.quartiles],
                "rounds": len(each.samples),
            }
        )
    return found


def _check(x: Tensor, gradient: Tensor) -> None:
    y = JSReLU()(x)
    (slope,) = torch.autograd.grad(y, x, gradient)
    wanted = reference(x.detach(), 1.0, float("inf"))
    wanted_slope = reference_backward(gradient, x.detach(), 1.0, float("inf"))
    if not (torch.equal(y, wanted) and torch.equal(slope, wanted_slope)):
        raise SystemExit("JSReLU differs from its definition; nothing is timed.")


def main() -> None:
    """Measure and write the record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, required=True)
    options = parser.parse_args()
    if not available():
        raise SystemExit("The native kernels are not built; run lazyneuron doctor --build.")
    found = [row for dtype in (torch.float32, torch.bfloat16, torch.float16) for row in rows(dtype)]
    for row in found:
        print(row)
    data = {"title": "JSReLU beside ReLU, forward and backward", "threads": torch.get_num_threads(), "rows": found}
    write_text(options.json, Record(kind="benchmark/jsrelu", data=data, seed=SEED).to_json())


if __name__ == "__main__":
    main()
