"""An activation with a threshold of its own for each neuron."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lazyneuron.blocks.activation import Activation
from lazyneuron.core.errors import ShapeError


class NeuronThreshold(nn.Module):
    """``s(x_j)`` where ``abs(s(x_j)) > limit_j``, else 0.

    No kernel knows limits that differ between neurons, so ``accelerate_`` refuses blocks with it.

    Args:
        base: the function ``s``.
        limits: (d_hidden,), one for each neuron, >= 0; kept as a buffer.

    Raises:
        ShapeError: in forward, another number of neurons.

    Example:
        >>> NeuronThreshold(Activation("relu"), torch.tensor([0.0, 2.0]))(torch.tensor([[1.0, 1.0]]))
        tensor([[1., 0.]])
    """

    limits: Tensor

    def __init__(self, base: Activation, limits: Tensor) -> None:
        super().__init__()
        self.base = base
        self.register_buffer("limits", limits)

    def forward(self, x: Tensor) -> Tensor:
        """The function's value, of shape (..., d_hidden) as ``x``."""
        if x.shape[-1] != len(self.limits):
            raise ShapeError(f"There are limits for {len(self.limits)} neurons, got {x.shape[-1]}.")
        value = self.base(x)
        return torch.where(value.abs() <= self.limits.to(value.dtype), torch.zeros_like(value), value)

    def extra_repr(self) -> str:
        """The base and the number of neurons."""
        return f"{self.base.kind}, {len(self.limits)} neurons"
