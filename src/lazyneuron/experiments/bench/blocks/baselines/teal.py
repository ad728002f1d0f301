"""TEAL (Liu et al., ICLR 2025), implemented anew: small inputs count as zero, so columns are skipped."""

from __future__ import annotations

import dataclasses

import torch
import torch.nn.functional as F
from torch import Tensor

from lazyneuron.blocks import LinearSite, MLPBlock
from lazyneuron.experiments.bench.blocks.baselines.baseline import (
    Baseline,
    Built,
    Problem,
    hidden,
    size_bytes,
)
from lazyneuron.experiments.bench.blocks.baselines.rows import MOST_GATHERED, weighted_rows


def build(problem: Problem) -> Built:
    """Keep so many inputs that one token reads as many bytes as a certified step; zeros of the hidden cost nothing."""
    block = problem.block
    layers = len(block.linears)
    firing = float((hidden(block, problem.sample) != 0).float().mean())
    keep = min(1.0, max(0.0, (problem.byte_share * layers - firing) / (layers - 1)))
    threshold = quantile_of_magnitude(problem.sample, 1 - keep)
    built = with_thresholds(block, threshold, 0.0)
    return dataclasses.replace(built, note=f"{keep:.2f} of the inputs" + (", as many bytes" if keep < 1 else ""))


def with_thresholds(block: MLPBlock, input_threshold: float, hidden_threshold: float) -> Built:
    """Inputs of ``up`` (and ``gate``) and of ``down`` count as zero up to these magnitudes; token by token."""
    columns = [(site.weight.t().contiguous(), site) for site in block.linears[:-1]]
    rows = block.down.weight.t().contiguous()

    def hidden_of(x: Tensor) -> Tensor:
        kept = _cut(x, input_threshold)
        act = block.activation(_columns(kept, *columns[0]))
        return _cut(act if len(columns) == 1 else act * _columns(kept, *columns[1]), hidden_threshold)

    def run(x: Tensor) -> Tensor:
        return _columns(hidden_of(x), rows, block.down)

    return Built(run=run, added_bytes=size_bytes(rows, *(c for c, _ in columns)), used=lambda x: hidden_of(x) != 0)


def quantile_of_magnitude(x: Tensor, share: float) -> float:
    """The magnitude that this share of the elements does not exceed; 0 for a share of 0."""
    magnitudes = x.float().abs().flatten()
    rank = round(share * magnitudes.numel())
    return float(magnitudes.kthvalue(rank).values) if rank > 0 else 0.0


def _cut(x: Tensor, threshold: float) -> Tensor:
    return torch.where(x.abs() > threshold, x, torch.zeros((), dtype=x.dtype))


def _columns(kept: Tensor, columns: Tensor, site: LinearSite) -> Tensor:
    """``weight x`` that reads only the columns of inputs that are not zero on some token."""
    index = (kept != 0).any(0).nonzero()[:, 0]
    if len(kept) == 1:
        z = weighted_rows(columns, index, kept[0].index_select(0, index))
    elif len(index) <= MOST_GATHERED * kept.shape[1]:
        z = kept.index_select(1, index) @ columns.index_select(0, index)
    else:
        return F.linear(kept, site.weight, site.bias)
    return z if site.bias is None else z + site.bias


BASELINE = Baseline(name="teal", about="TEAL: small inputs taken as zero", exact=False, build=build)
