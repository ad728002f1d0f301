"""Activations that let a fixed number of each token's neurons fire."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lazyneuron.blocks.activation import Activation
from lazyneuron.blocks.top_k import block_top_k, statistical_top_k, top_k
from lazyneuron.core.errors import ConfigError


class _Straight(torch.autograd.Function):
    """A top-k function whose backward is ReLU's, as if nothing had been cut."""

    @staticmethod
    def forward(x: Tensor, activation: Activation) -> Tensor:
        return activation(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Activation], output: Tensor) -> None:
        ctx.save_for_backward(inputs[0])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        return torch.ops.aten.threshold_backward(gradients[0], x, 0), None


def _straight(activation: Activation, x: Tensor) -> Tensor:
    value: Tensor = _Straight.apply(x, activation)  # type: ignore[no-untyped-call]
    return value


class TopK(nn.Module):
    """``relu(x)`` at the ``k`` largest neurons of each token, 0 elsewhere.

    What fires depends on all neurons of the token, so there is no zero interval to certify.

    Args:
        k: how many neurons may fire, at least 1; of equal values some are kept, never more than ``k`` in all.
        straight_through: give the neurons that were cut the gradient of ReLU too, so that they can come back; False
            gives it to those that fire only.

    Raises:
        ConfigError: ``k`` is no whole number >= 1.
        ShapeError: in forward, the input has fewer than ``k`` neurons.

    Cost: one selection of ``k`` in ``d_hidden`` for each token.

    Example:
        >>> TopK(1)(torch.tensor([[-1.0, 2.0, 3.0]]))
        tensor([[0., 0., 3.]])

    Source: Li et al., "The Lazy Neuron Phenomenon", 2023 (Top-k Transformer); the straight-through gradient is ours.
    """

    def __init__(self, k: int, *, straight_through: bool = True) -> None:
        super().__init__()
        if not isinstance(k, int) or isinstance(k, bool) or k < 1:
            raise ConfigError(f"`k` is a number of neurons, a whole number >= 1, got {k!r}.")
        self.k = k
        self.straight_through = straight_through

    def activation_spec(self) -> Activation:
        """The function as a fact."""
        return Activation("top_k", (self.k,))

    def forward(self, x: Tensor) -> Tensor:
        """The function's value, of shape (..., d_hidden) as ``x``."""
        return _straight(self.activation_spec(), x) if self.straight_through else top_k(x, self.k)

    def extra_repr(self) -> str:
        """``k``."""
        return f"k={self.k}, straight_through={self.straight_through}"


class StatisticalTopK(nn.Module):
    """``relu(x - (mean + q * std))`` over each token's neurons, with ``q`` the normal quantile of ``1 - density``.

    If a token's pre-activations are normal, a share ``density`` of them fires; otherwise the share differs. It needs no
    selection, and the gradient is exact, through mean and deviation too. What fires depends on all neurons of the
    token, so there is no zero interval to certify.

    Args:
        density: share of neurons that is to fire, in (0, 1).

    Raises:
        ConfigError: the density is not in (0, 1).
        ShapeError: in forward, the input has a single neuron.

    Cost: two reductions and one element-wise pass.

    Source: You et al., "Spark Transformer: Reactivating Sparsity in FFN and Attention", 2025.
    """

    def __init__(self, density: float) -> None:
        super().__init__()
        if not 0 < density < 1:
            raise ConfigError(f"A density is a fraction between 0 and 1, got {density}.")
        self.density = float(density)

    def activation_spec(self) -> Activation:
        """The function as a fact."""
        return Activation("statistical_top_k", (self.density,))

    def forward(self, x: Tensor) -> Tensor:
        """The function's value, of shape (..., d_hidden) as ``x``."""
        return statistical_top_k(x, self.density)

    def extra_repr(self) -> str:
        """The density."""
        return f"density={self.density:g}"


class BlockTopK(nn.Module):
    """``relu(x)`` in the ``k`` strongest groups of ``size`` neighbouring neurons of each token, 0 elsewhere.

    Groups make what fires contiguous in memory. A group's strength is the sum of squares of ``relu(x)`` in it.

    Args:
        k: how many groups may fire, at least 1.
        size: neurons in a group; it divides the number of neurons.
        straight_through: give the groups that were cut the gradient of ReLU too.

    Raises:
        ConfigError: ``k`` or ``size`` is no whole number >= 1.
        ShapeError: in forward, the neurons do not divide into groups, or there are fewer than ``k``.

    Cost: a sum over each group and one selection for each token.

    Example:
        >>> BlockTopK(1, 2)(torch.tensor([[3.0, -1.0, 2.0, 2.5]]))
        tensor([[0.0000, 0.0000, 2.0000, 2.5000]])

    Source: ours.
    """

    def __init__(self, k: int, size: int, *, straight_through: bool = True) -> None:
        super().__init__()
        self._spec = Activation("block_top_k", (k, size))
        self.k, self.size = k, size
        self.straight_through = straight_through

    def activation_spec(self) -> Activation:
        """The function as a fact."""
        return self._spec

    def forward(self, x: Tensor) -> Tensor:
        """The function's value, of shape (..., d_hidden) as ``x``."""
        return _straight(self._spec, x) if self.straight_through else block_top_k(x, self.k, self.size)

    def extra_repr(self) -> str:
        """``k`` and ``size``."""
        return f"k={self.k}, size={self.size}, straight_through={self.straight_through}"
