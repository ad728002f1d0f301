"""Hidden activations as a CSR matrix, times ``down`` by ``torch.sparse``."""

from __future__ import annotations

import warnings

from torch import Tensor

from lazyneuron.experiments.bench.blocks.baselines.baseline import Baseline, Built, Problem, hidden, size_bytes


def build(problem: Problem) -> Built:
    """Copy ``down`` by neuron, and multiply once: torch has no CSR product in some dtypes and builds."""
    block = problem.block
    rows = block.down.weight.t().contiguous()

    def run(x: Tensor) -> Tensor:
        y = hidden(block, x).to_sparse_csr() @ rows
        return y if block.down.bias is None else y + block.down.bias

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch says once that CSR is in beta
        run(problem.inputs[0])
    return Built(run=run, added_bytes=size_bytes(rows))


BASELINE = Baseline(name="csr", about="torch.sparse CSR times down", exact=True, build=build)
