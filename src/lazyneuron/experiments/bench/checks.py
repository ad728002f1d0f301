"""What the checks before each sparse call cost.

The same kernel alone and behind all the checks of an accelerated block, one token, in turns; and a block for which
dense was chosen beside the original module. The ceiling is the content comparison's bytes at this machine's bandwidth;
what is above it is Python's.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lazyneuron.accelerate import accelerate_
from lazyneuron.accelerate.path import DENSE
from lazyneuron.accelerate.status import executions
from lazyneuron.core.bandwidth import read_bandwidth_gbps
from lazyneuron.core.record import Record
from lazyneuron.core.timing import Times, compared
from lazyneuron.experiments.bench.correct import needs_kernels, refuse_wrong
from lazyneuron.experiments.experiment import SEED, Experiment, Request, benchmark_record
from lazyneuron.ops.fingerprint.fingerprint import BYTES_A_CALL
from lazyneuron.report import markdown_table, provenance

SHAPES = ((64, 256), (384, 1536), (768, 3072), (1024, 4096))


class Block(nn.Module):
    """An MLP block as models have it: layers, activation module and dropout in a module of their own."""

    def __init__(self, d_in: int, d_hidden: int, *, gated: bool) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(d_in, d_hidden) if gated else None
        self.up_proj, self.down_proj = nn.Linear(d_in, d_hidden), nn.Linear(d_hidden, d_in)
        self.act_fn, self.dropout = nn.ReLU(), nn.Dropout(0.1)
        nn.init.constant_((self.gate_proj or self.up_proj).bias, -0.9)

    def forward(self, x: Tensor) -> Tensor:
        """The block's output."""
        up = self.up_proj(x)
        h = self.act_fn(up) if self.gate_proj is None else self.act_fn(self.gate_proj(x)) * up
        y: Tensor = self.dropout(self.down_proj(h))
        return y


@torch.inference_mode(False)
@torch.no_grad()
def _row(d_in: int, d_hidden: int, *, gated: bool, gbps: float, budget_s: float) -> dict[str, Any]:
    """Times of one shape; the outputs are compared first."""
    torch.manual_seed(SEED)
    plain = Block(d_in, d_hidden, gated=gated).eval()
    inputs = [torch.randn(1, d_in) for _ in range(8)]
    wanted = [plain(x) for x in inputs]
    accelerate_(plain, impl="native")
    (run,) = executions(plain)
    right = all(torch.allclose(plain(x), y, rtol=1e-4, atol=1e-5) for x, y in zip(inputs, wanted, strict=True))
    refuse_wrong("The accelerated block", right)
    kernel = run.current.now().runs[0]
    assert kernel is not None
    sparse = compared({"checked": run, "kernel": kernel}, inputs, budget_s=budget_s, seed=SEED)
    run.following.table = (DENSE,) * len(run.following.table)
    original = type(plain).forward
    dense = compared(
        {"declined": plain, "original": lambda x: original(plain, x)}, inputs, budget_s=budget_s, seed=SEED
    )
    return {
        "shape": f"{d_in} x {d_hidden}{', gated' if gated else ''}",
        "kernel_us": round(sparse["kernel"].median_us, 1),
        "checked_us": round(sparse["checked"].median_us, 1),
        "checks_us": round(_difference(sparse["checked"], sparse["kernel"]), 1),
        "dense_us": round(dense["original"].median_us, 1),
        "declined_us": round(_difference(dense["declined"], dense["original"]), 1),
        "bytes_us": round(BYTES_A_CALL / gbps / 1e3, 1),
        "calls_to_see_all": run.current.now().freshness.calls_to_see_all,
    }


def _difference(over: Times, under: Times) -> float:
    """The median of the differences, round by round."""
    each = sorted(a - b for a, b in zip(over.samples_us, under.samples_us, strict=True))
    return each[len(each) // 2]


def run(request: Request) -> Record:
    """Every shape, plain and gated.

    Raises:
        ImplUnavailable: the native kernels are not built.
    """
    needs_kernels()
    shapes, budget_s = (SHAPES[:1], 0.2) if request.quick else (SHAPES, 4.0)
    cases = [(d, h, gated) for d, h in shapes for gated in (False, True)]
    gbps, rows = read_bandwidth_gbps(), []
    for number, (d, h, gated) in enumerate(cases):
        request.advance(number / len(cases), f"{d} x {h}")
        rows.append(_row(d, h, gated=gated, gbps=gbps, budget_s=budget_s))
    return benchmark_record(
        "checks", title="The checks around a sparse call, one token, float32", rows=rows, read_gbps=gbps
    )


def _section(record: Record) -> str:
    table = [
        {
            "block": row["shape"],
            "kernel us": row["kernel_us"],
            "with all checks us": row["checked_us"],
            "checks us": row["checks_us"],
            "their bytes alone us": row["bytes_us"],
            "dense us": row["dense_us"],
            "checks where dense is chosen us": row["declined_us"],
            "calls to see all": row["calls_to_see_all"],
        }
        for row in record.data["rows"]
    ]
    return f"{markdown_table(table)}\n\n{provenance(record)}\n"


EXPERIMENT = Experiment(
    name="checks",
    title="What the checks before each sparse call cost",
    run=run,
    kind="benchmark",
    sections={"docs/reliability.md": _section},
)
