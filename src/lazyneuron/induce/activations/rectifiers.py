"""Rectifiers: the squared ReLU, and the ReLU that opens above a shift."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lazyneuron.blocks.activation import Activation
from lazyneuron.core.errors import ConfigError
from lazyneuron.induce.activations.specified import SpecifiedActivation


class SquaredReLU(SpecifiedActivation):
    """``f(x) = relu(x)**2``, zero and flat on ``(-inf, 0]``.

    Example:
        >>> SquaredReLU()(torch.tensor([-1.0, 3.0]))
        tensor([0., 9.])

    Source: So et al., "Primer: Searching for Efficient Transformers for Language Modeling", 2021.
    """

    def activation_spec(self) -> Activation:
        """The function as a fact."""
        return Activation("squared_relu")

    def forward(self, x: Tensor) -> Tensor:
        """The function's value."""
        return F.relu(x).square()

    def derivative(self, x: Tensor) -> Tensor:
        """The slope, ``2 * relu(x)``."""
        return 2 * F.relu(x)


class DReLU(nn.Module):
    """``f(g, u) = relu(g) * relu(u)``, for the two factors of a gated block: silent where either is.

    ``Relufy(rectify_up=True)`` puts it into a model.

    Example:
        >>> DReLU()(torch.tensor([1.0, 2.0, -1.0]), torch.tensor([3.0, -4.0, 5.0]))
        tensor([3., 0., 0.])

    Source: Song et al., "Turbo Sparse: Achieving LLM SOTA Performance with Minimal Activated Parameters", 2024.
    """

    def forward(self, gate: Tensor, up: Tensor) -> Tensor:
        """The function's value, of the shape of both."""
        return F.relu(gate) * F.relu(up)


class _Gate(torch.autograd.Function):
    """``x`` above ``t``, else 0; ``t`` learns from a box of width ``bandwidth`` around itself."""

    @staticmethod
    def forward(x: Tensor, t: Tensor, bandwidth: float) -> Tensor:
        return torch.where(x <= t, torch.zeros_like(x), x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, float], output: Tensor) -> None:
        x, t, ctx.bandwidth = inputs
        ctx.save_for_backward(x, t)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        x, t = ctx.saved_tensors
        g, width = gradients[0], ctx.bandwidth
        near = (x - t).abs() <= width / 2
        to_shift = -(torch.where(near, g, 0).float().sum() * t / width).to(t.dtype)
        return torch.where(x <= t, torch.zeros_like(g), g), to_shift, None


class FATReLU(SpecifiedActivation):
    """``f(x) = x`` above the shift ``t``, else 0.

    The function jumps at ``t``, so its true gradient in ``t`` is 0 almost everywhere. A learnable shift gets instead
    ``-t / bandwidth`` times the gradient of every neuron within half a bandwidth of it: the jump seen through a box.

    Args:
        shift: ``t``, a finite number; at ``t < 0`` the zero interval is ``(-inf, t]`` still.
        learnable: make ``t`` a parameter.
        bandwidth: width of that box, a number > 0.

    Raises:
        ConfigError: shift or bandwidth out of range.

    Example:
        >>> FATReLU(0.5)(torch.tensor([0.4, 0.6]))
        tensor([0.0000, 0.6000])

    Source: Kurtz et al., "Inducing and Exploiting Activation Sparsity for Fast Neural Network Inference", 2020; the
        gradient of the shift after Rajamanoharan et al., "Jumping Ahead" (JumpReLU), 2024.
    """

    shift: Tensor

    def __init__(self, shift: float = 0.0, *, learnable: bool = False, bandwidth: float = 0.1) -> None:
        super().__init__()
        Activation("fatrelu", (float(shift),))
        if not bandwidth > 0:
            raise ConfigError(f"A bandwidth is a number > 0, got {bandwidth}.")
        self.bandwidth = float(bandwidth)
        value = torch.tensor(float(shift))
        if learnable:
            self.shift = nn.Parameter(value)
        else:
            self.register_buffer("shift", value)

    def activation_spec(self) -> Activation:
        """The function as a fact, with the shift it has now."""
        return Activation("fatrelu", (self.shift.detach().item(),))

    def forward(self, x: Tensor) -> Tensor:
        """The function's value."""
        value: Tensor = _Gate.apply(x, self.shift, self.bandwidth)  # type: ignore[no-untyped-call]
        return value

    def derivative(self, x: Tensor) -> Tensor:
        """The slope: 0 up to the shift, 1 above."""
        return (x > self.shift).to(x.dtype)

    def extra_repr(self) -> str:
        """Shift and kind."""
        return f"shift={self.shift.detach().item():g}, learnable={isinstance(self.shift, nn.Parameter)}"
