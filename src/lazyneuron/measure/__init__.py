"""How sparsely a model fires: densities, unions, overlap, costs and ceilings; a pure observer."""

from lazyneuron.measure.cost import BlockCost, StepTime, Traffic, traffic
from lazyneuron.measure.run import measure
from lazyneuron.measure.share import mlp_time_share
from lazyneuron.measure.sparsity import BlockSparsity, PredictedGain, SparsityReport, UnionDensity

__all__ = [
    "BlockCost",
    "BlockSparsity",
    "PredictedGain",
    "SparsityReport",
    "StepTime",
    "Traffic",
    "UnionDensity",
    "measure",
    "mlp_time_share",
    "traffic",
]
