"""Naive sparsity: every neuron is computed, the rows of ``down`` that fire are gathered, then multiplied."""

from __future__ import annotations

from torch import Tensor

from lazyneuron.experiments.bench.blocks.baselines.baseline import Baseline, Built, Problem, hidden, size_bytes


def build(problem: Problem) -> Built:
    """Copy ``down`` by neuron."""
    block = problem.block
    rows = block.down.weight.t().contiguous()

    def run(x: Tensor) -> Tensor:
        h = hidden(block, x)
        fires = (h != 0).any(0).nonzero()[:, 0]
        y = h.index_select(1, fires) @ rows.index_select(0, fires)
        return y if block.down.bias is None else y + block.down.bias

    return Built(run=run, added_bytes=size_bytes(rows))


BASELINE = Baseline(name="gather", about="index_select, then matmul", exact=True, build=build)
