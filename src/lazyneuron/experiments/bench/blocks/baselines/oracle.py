"""Who fires is known for free: only those neurons are computed. Nothing real can do that; it judges kernels."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from lazyneuron.blocks import LinearSite, MLPBlock
from lazyneuron.experiments.bench.blocks.baselines.baseline import Baseline, Built, Problem, hidden, size_bytes
from lazyneuron.experiments.bench.blocks.baselines.rows import SomeNeurons, weighted_rows


def build(problem: Problem) -> Built:
    """Look up who fires on every measured input beforehand."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch says once that CSR is in beta
        if problem.block.up.weight.dtype == torch.float32:
            return _pairs(problem)
        return _union(problem)


class _Known:
    """What was looked up for some inputs; looked up at the call for any other."""

    def __init__(self, inputs: Sequence[Tensor], look_up: Callable[[Tensor], Tensor]) -> None:
        self.look_up = look_up
        self.found = {id(x): (x, look_up(x)) for x in inputs}  # x is kept, so that its id is of no other tensor

    def __call__(self, x: Tensor) -> Tensor:
        entry = self.found.get(id(x))
        return self.look_up(x) if entry is None else entry[1]


def _union(problem: Problem) -> Built:
    """Rows that fire on some token are gathered; for dtypes in which torch has no sampled product."""
    some = SomeNeurons(problem.block)

    def firing(x: Tensor) -> Tensor:
        return (hidden(problem.block, x) != 0).any(0).nonzero()[:, 0]

    known = _Known(problem.inputs, firing)
    return Built(
        run=lambda x: some(x, known(x)), added_bytes=size_bytes(some.down_rows), note="rows of the union, gathered"
    )


def _pairs(problem: Problem) -> Built:
    """Every firing (token, neuron) pair alone, by torch's sampled product; nothing is copied."""
    block = problem.block
    rows = block.down.weight.t().contiguous()
    known = _Known(problem.inputs, functools.partial(_pattern, block))

    def run(x: Tensor) -> Tensor:
        pattern = known(x)
        # one token stands in as many equal rows as there are threads, each with its part of the neurons
        wide = x if len(x) > 1 else x.expand(pattern.shape[0], -1).contiguous()
        index = pattern.col_indices()
        h = block.activation(_sampled(pattern, wide, block.first))
        if block.gate is not None:
            h = h * _sampled(pattern, wide, block.up)
        if len(x) > 1:
            y = torch.sparse_csr_tensor(pattern.crow_indices(), index, h, pattern.shape) @ rows
        else:
            y = weighted_rows(rows, index, h)
        return y if block.down.bias is None else y + block.down.bias

    run(problem.inputs[0])
    return Built(run=run, added_bytes=size_bytes(rows), note="firing pairs alone")


def _sampled(pattern: Tensor, x: Tensor, site: LinearSite) -> Tensor:
    """Pre-activations at the pairs of a pattern, in its order."""
    z: Tensor = torch.sparse.sampled_addmm(pattern, x, site.weight.t(), beta=0.0).values()
    return z if site.bias is None else z + site.bias.index_select(0, pattern.col_indices())


def _pattern(block: MLPBlock, x: Tensor) -> Tensor:
    """Zeros as CSR (tokens, d_hidden) where neurons fire."""
    mask = hidden(block, x) != 0
    if len(x) > 1:
        return mask.float().to_sparse_csr() * 0
    index = mask[0].nonzero()[:, 0]
    parts = torch.get_num_threads()
    ends = torch.arange(parts + 1) * len(index) // parts
    return torch.sparse_csr_tensor(ends, index, torch.zeros(len(index)), (parts, block.d_hidden))


BASELINE = Baseline(name="oracle", about="firing neurons known for free", exact=True, build=build)
