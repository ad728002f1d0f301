"""The jumping squared ReLU: a rectifier whose slope grows with its input."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from lazyneuron.blocks.activation import Activation
from lazyneuron.core.numbers import real
from lazyneuron.induce.activations.specified import SpecifiedActivation
from lazyneuron.ops.jsrelu.operator import jsrelu


class JSReLU(SpecifiedActivation):
    """``f(x) = relu(x) + mix / 2 * relu(x)**2``, going on in a line above ``cap``.

    With ``mix = 1`` this is ``((x + 1)**2 - 1) / 2`` at ``x > 0``: the slope jumps from 0 to 1 and grows from there, so
    that a neuron which fires more also has the larger gradient. With ``mix = 0`` it is ReLU, bitwise.

    Args:
        mix: weight of the square, a finite number >= 0. It may be assigned later, as a ramp does; ``state_dict``
            carries it, in float64.
        cap: where the square goes over into a line of the same value and slope; None for nowhere. Quadratic growth
            leaves float16 at 360.

    Raises:
        ConfigError: mix or cap out of range.

    Cost: keeps only its input for the backward pass. On the CPU in float32, bfloat16 and float16 one native pass each
        way, which moves as many bytes as ReLU; elsewhere several element-wise passes of plain torch.

    Example:
        >>> JSReLU()(torch.tensor([-1.0, 0.0, 2.0]))
        tensor([0., 0., 4.])

    Source: Peng et al., "A Theoretical Explanation of Activation Sparsity through Flat Minima and Adversarial
        Robustness", 2023, where it is called J-SquaredReLU. The rearranged, capped form is ours.
    """

    def __init__(self, mix: float = 1.0, cap: float | None = None) -> None:
        super().__init__()
        nowhere = cap is None or (isinstance(cap, float) and cap == math.inf)
        self.cap = math.inf if nowhere else real(cap, "`cap`", above=0)
        self.mix = mix

    @property
    def mix(self) -> float:
        """Weight of the square."""
        return self._mix

    @mix.setter
    def mix(self, value: float) -> None:
        self._mix = real(value, "`mix`", least=0)

    def activation_spec(self) -> Activation:
        """The function as a fact."""
        return Activation("jsrelu", (self._mix, self.cap))

    def forward(self, x: Tensor) -> Tensor:
        """The function's value."""
        if self._mix == 0:  # 0 * inf would be NaN
            return F.relu(x)
        return jsrelu(x, self._mix, self.cap)

    def derivative(self, x: Tensor) -> Tensor:
        """The slope: 0 at ``x <= 0``, ``1 + mix * min(x, cap)`` above."""
        inside = F.relu(x) if math.isinf(self.cap) else x.clamp(0, self.cap)
        slope = torch.ones_like(x) if self._mix == 0 else 1 + self._mix * inside
        return torch.where(x <= 0, torch.zeros_like(x), slope)

    def get_extra_state(self) -> Tensor:
        """The mix as a tensor, for ``state_dict``."""
        return torch.tensor(self._mix, dtype=torch.float64, device="cpu")

    def set_extra_state(self, state: Tensor) -> None:
        """Take the mix that :meth:`get_extra_state` gave."""
        self.mix = float(state)

    def extra_repr(self) -> str:
        """Mix and cap."""
        return f"mix={self._mix:g}, cap={self.cap:g}"
