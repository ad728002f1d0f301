"""A dense block with as many neurons as fire on average: those that contribute most on the calibration tokens."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from lazyneuron.experiments.bench.blocks.baselines.baseline import Baseline, Built, Problem, hidden, size_bytes


def build(problem: Problem) -> Built:
    """Keep the neurons with the largest mean magnitude times norm of their ``down`` row; nothing is refitted."""
    block = problem.block
    h = hidden(block, problem.sample)
    count = max(1, round(float((h != 0).float().mean()) * block.d_hidden))
    importance = h.float().abs().mean(0) * block.down.weight.float().norm(dim=0)
    kept = importance.topk(count).indices.sort().values
    sites = [_rows(s.weight, s.bias, kept) for s in block.linears[:-1]]
    down = block.down.weight.index_select(1, kept).contiguous()

    def run(x: Tensor) -> Tensor:
        act = block.activation(F.linear(x, *sites[0]))
        return F.linear(act if len(sites) == 1 else act * F.linear(x, *sites[1]), down, block.down.bias)

    mask = torch.zeros(block.d_hidden, dtype=torch.bool)
    mask[kept] = True
    kept_bytes = size_bytes(down, *(w for w, _ in sites))
    return Built(
        run=run,
        added_bytes=kept_bytes - size_bytes(*(s.weight for s in block.linears)),
        used=lambda x: mask.expand(len(x), -1),
        note=f"{count} neurons, in place of the weights",
    )


def _rows(weight: Tensor, bias: Tensor | None, kept: Tensor) -> tuple[Tensor, Tensor | None]:
    return weight.index_select(0, kept), None if bias is None else bias.index_select(0, kept)


BASELINE = Baseline(
    name="pruned", about="as many neurons as fire on average, always the same", exact=False, build=build
)
