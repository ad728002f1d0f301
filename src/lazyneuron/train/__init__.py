"""Training with these modules in any loop: watching, guarding, saving and resuming."""

from lazyneuron.train.checkpoint import Checkpoints
from lazyneuron.train.guard import LossGuard
from lazyneuron.train.monitor import Reading, SparsityMonitor
from lazyneuron.train.order import BatchOrder

__all__ = ["BatchOrder", "Checkpoints", "LossGuard", "Reading", "SparsityMonitor"]
