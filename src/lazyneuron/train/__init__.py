"""Training in any loop: watching, guarding, penalising, projecting, saving and resuming, on one process or several.

For whoever trains a changed model. `hooks.py` says what happens when; the callbacks for trainers only call it.
What lies on disk (`tree`, `saved`, `shards`, `steps`) has to stay readable and crash-safe: see tests/core/savers.py.
"""

from lazyneuron.train.checkpoint import Checkpoints
from lazyneuron.train.guard import LossGuard
from lazyneuron.train.hooks import TrainingHooks
from lazyneuron.train.monitor import Reading, SparsityMonitor
from lazyneuron.train.order import BatchOrder, OrderedLoader
from lazyneuron.train.packing.transform import pack_activations_

__all__ = [
    "BatchOrder",
    "Checkpoints",
    "LossGuard",
    "OrderedLoader",
    "Reading",
    "SparsityMonitor",
    "TrainingHooks",
    "pack_activations_",
]
