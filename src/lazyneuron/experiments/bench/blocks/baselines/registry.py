"""All baselines by name, in the order in which tables show them."""

from __future__ import annotations

from lazyneuron.experiments.bench.blocks.baselines import (
    cats,
    compiled,
    csr,
    dense,
    gather,
    int8,
    low_rank,
    oracle,
    pruned,
    teal,
)
from lazyneuron.experiments.bench.blocks.baselines.baseline import Baseline

DENSE = dense.BASELINE
BASELINES: dict[str, Baseline] = {
    module.BASELINE.name: module.BASELINE
    for module in (compiled, int8, gather, csr, oracle, pruned, teal, cats, low_rank)
}
