"""How sparsely a model fires: densities, unions, overlap, costs and ceilings; a pure observer.

For users, and for `induce`, `train` and `accelerate`. Counting (`tally.py`, `lanes.py`) knows no model; what is counted
comes through `blocks/recorder.py` alone. Figures may be added to a report; saved ones keep their names.
"""

from lazyneuron.measure.cost import BlockCost, StepTime, Traffic, traffic
from lazyneuron.measure.forecast import Forecast, gaussian_rates
from lazyneuron.measure.measurement import measure
from lazyneuron.measure.parallel import Device, ParallelStep, decode_step, fullest_share, training_step
from lazyneuron.measure.share import mlp_time_share
from lazyneuron.measure.sparsity import BlockSparsity, PredictedGain, SparsityReport, UnionDensity

__all__ = [
    "BlockCost",
    "BlockSparsity",
    "Device",
    "Forecast",
    "ParallelStep",
    "PredictedGain",
    "SparsityReport",
    "StepTime",
    "Traffic",
    "UnionDensity",
    "decode_step",
    "fullest_share",
    "gaussian_rates",
    "measure",
    "mlp_time_share",
    "traffic",
    "training_step",
]
