"""What the checks before each sparse call cost.

The same kernel alone and behind all the checks of an accelerated block, one token, in turns; and a block for which
dense was chosen beside the original module. The ceiling is the content comparison's bytes at this machine's bandwidth;
what is above it is Python's.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lazyneuron.accelerate import accelerate_
from lazyneuron.accelerate.status import executions
from lazyneuron.core.bandwidth import read_bandwidth_gbps
from lazyneuron.core.record import Record, write_text
from lazyneuron.core.timing import Times, compared
from lazyneuron.ops.fingerprint.fingerprint import BYTES_A_CALL
from lazyneuron.ops.native import load

SHAPES = ((64, 256), (384, 1536), (768, 3072), (1024, 4096))
SEED = 0
_BUDGET_S = 4.0


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
        return self.dropout(self.down_proj(h))


@torch.inference_mode(False)
@torch.no_grad()
def row(d_in: int, d_hidden: int, *, gated: bool, gbps: float) -> dict[str, Any]:
    """Times of one shape; the outputs are compared first."""
    torch.manual_seed(SEED)
    plain = Block(d_in, d_hidden, gated=gated).eval()
    inputs = [torch.randn(1, d_in) for _ in range(8)]
    wanted = [plain(x) for x in inputs]
    accelerate_(plain, impl="native")
    (run,) = executions(plain)
    if not all(torch.allclose(plain(x), y, rtol=1e-4, atol=1e-5) for x, y in zip(inputs, wanted, strict=True)):
        raise SystemExit("The accelerated block differs from the dense one; nothing is timed.")
    kernel = run.current.now().runs[0]
    assert kernel is not None
    sparse = compared({"checked": run, "kernel": kernel}, inputs, budget_s=_BUDGET_S, seed=SEED)
    run.following.table = ("dense",) * len(run.following.table)
    original = type(plain).forward
    dense = compared(
        {"declined": plain, "original": lambda x: original(plain, x)}, inputs, budget_s=_BUDGET_S, seed=SEED
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


def main() -> None:
    """Measure and write the record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, required=True)
    options = parser.parse_args()
    if not load.status().available:
        raise SystemExit("The native kernels are not built; run lazyneuron doctor --build.")
    gbps = read_bandwidth_gbps()
    rows = [row(d, h, gated=gated, gbps=gbps) for d, h in SHAPES for gated in (False, True)]
    for each in rows:
        print(each)
    data = {"title": "The checks around a sparse call, one token, float32", "rows": rows, "read_gbps": gbps}
    write_text(options.json, Record(kind="benchmark/checks", data=data, seed=SEED).to_json())


if __name__ == "__main__":
    main()
