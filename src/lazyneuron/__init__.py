"""Run only the neurons that fire: measure, induce and exactly exploit activation sparsity in PyTorch models."""

__version__ = "0.1.0"
