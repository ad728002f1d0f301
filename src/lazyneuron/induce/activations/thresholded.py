"""Smooth activations whose small values are cut to exactly zero."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from lazyneuron.blocks.activation import Activation
from lazyneuron.induce.activations.specified import SpecifiedActivation

Base = Literal["silu", "gelu", "gelu_tanh"]


class Thresholded(SpecifiedActivation):
    """``s(x)`` where ``abs(s(x)) > threshold``, else 0, for a smooth activation ``s``.

    The zero interval of these has two pieces at a small threshold (far to the left, and around 0), one at a large.

    Args:
        base: ``"silu"``, ``"gelu"`` or ``"gelu_tanh"``.
        threshold: a finite number >= 0.
        straight_through: give the neurons that were cut the gradient of ``s``, so that they can come back.

    Raises:
        ConfigError: an unknown base or a threshold out of range.

    Example:
        >>> Thresholded("silu", 0.2)(torch.tensor([-1.0, 0.1, 2.0]))
        tensor([-0.2689,  0.0000,  1.7616])

    Source: Lee et al., "CATS: Contextually-Aware Thresholding for Sparsity in Large Language Models", 2024.
    """

    def __init__(self, base: Base = "silu", threshold: float = 0.1, *, straight_through: bool = False) -> None:
        super().__init__()
        self._spec = Activation(f"thresholded_{base}", (float(threshold),))
        self._smooth = Activation(base)
        self.straight_through = straight_through

    def activation_spec(self) -> Activation:
        """The function as a fact."""
        return self._spec

    def forward(self, x: Tensor) -> Tensor:
        """The function's value."""
        if not self.straight_through:
            return self._spec(x)
        smooth = self._smooth(x)
        return smooth + (self._spec(x) - smooth).detach()

    def derivative(self, x: Tensor) -> Tensor:
        """The slope of the function itself."""
        return torch.where(self._spec(x.detach()) == 0, torch.zeros_like(x), self._smooth.derivative(x))

    def extra_repr(self) -> str:
        """Base, threshold and kind of gradient."""
        return f"{self._smooth.kind}, threshold={self._spec.parameters[0]:g}, straight_through={self.straight_through}"
