"""The block as torch runs it, eagerly."""

from lazyneuron.accelerate.dense import dense
from lazyneuron.bench.baselines.baseline import Baseline, Built, Problem


def build(problem: Problem) -> Built:
    """Nothing to prepare."""
    return Built(run=dense(problem.block))


BASELINE = Baseline(name="dense", about="torch, eager", exact=True, build=build)
