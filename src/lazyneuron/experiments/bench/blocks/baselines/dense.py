"""The block as a model that torch runs, eagerly."""

from lazyneuron.experiments.bench.blocks.baselines.baseline import Baseline, Built, Problem
from lazyneuron.experiments.bench.blocks.model import BlockModel


def build(problem: Problem) -> Built:
    """Nothing to prepare."""
    return Built(run=BlockModel(problem.block))


BASELINE = Baseline(name="dense", about="torch, eager", exact=True, build=build)
