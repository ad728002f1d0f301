"""An activation whose flat region is neither where its value is 0 nor around 0."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from lazyneuron.blocks.activation import Activation
from lazyneuron.induce.activations.specified import SpecifiedActivation


class ShiftedActivation(SpecifiedActivation):
    """``A(x) = s(x - dx - h) - s(-(x - dx) - h) + dy`` with a rectifier ``s``.

    It is flat on ``[dx - h, dx + h]`` and has the value ``dy`` there.

    It separates "a small activation" from "a zero derivative". If training moves pre-activations into the flat interval
    whatever the value there, the derivative drives sparsity and not the activation.

    Args:
        base: the rectifier, ``"squared_relu"`` or ``"jsrelu"``.
        half_interval: ``h``, a finite number > 0.
        dx: centre of the flat interval.
        dy: value on it.

    Raises:
        ConfigError: an unknown base or a number out of range.

    Example:
        >>> import torch
        >>> ShiftedActivation(dx=0.0, dy=1.0)(torch.tensor([-2.5, 0.0, 1.5, 3.5]))
        tensor([0., 1., 1., 5.])

    Source: Peng et al., 2023, section 6.
    """

    def __init__(
        self,
        base: Literal["squared_relu", "jsrelu"] = "squared_relu",
        half_interval: float = 1.5,
        *,
        dx: float = 1.6,
        dy: float = 1.6,
    ) -> None:
        super().__init__()
        self._spec = Activation(f"shifted_{base}", (float(half_interval), float(dx), float(dy)))

    def activation_spec(self) -> Activation:
        """The function as a fact."""
        return self._spec

    def forward(self, x: Tensor) -> Tensor:
        """The function's value."""
        return self._spec(x)

    def derivative(self, x: Tensor) -> Tensor:
        """The slope."""
        return self._spec.derivative(x)

    def extra_repr(self) -> str:
        """Kind, half interval, dx and dy."""
        return ", ".join([self._spec.kind, *map(str, self._spec.parameters)])
