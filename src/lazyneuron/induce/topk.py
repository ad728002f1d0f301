"""Activations that let a fixed number of each token's neurons fire."""

from __future__ import annotations

import statistics
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lazyneuron.core.errors import ConfigError, ShapeError


class _Keep(torch.autograd.Function):
    """The ``k`` largest of ``relu(x)``; backward is ReLU's, as if nothing had been cut."""

    @staticmethod
    def forward(x: Tensor, k: int) -> Tensor:
        r = F.relu(x)
        values, places = r.topk(k, dim=-1, sorted=False)
        return torch.zeros_like(r).scatter(-1, places, values)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, int], output: Tensor) -> None:
        ctx.save_for_backward(inputs[0])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        return torch.ops.aten.threshold_backward(gradients[0], x, 0), None


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

    def forward(self, x: Tensor) -> Tensor:
        """The function's value, of shape (..., d_hidden) as ``x``."""
        if x.shape[-1] < self.k:
            raise ShapeError(f"TopK keeps {self.k} neurons but got {x.shape[-1]} only; choose a smaller k.")
        if self.straight_through:
            value: Tensor = _Keep.apply(x, self.k)  # type: ignore[no-untyped-call]
            return value
        r = F.relu(x)
        values, places = r.topk(self.k, dim=-1, sorted=False)
        return torch.zeros_like(r).scatter(-1, places, values)

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
        self._quantile = statistics.NormalDist().inv_cdf(1 - self.density)

    def forward(self, x: Tensor) -> Tensor:
        """The function's value, of shape (..., d_hidden) as ``x``."""
        if x.shape[-1] < 2:
            raise ShapeError("StatisticalTopK needs at least 2 neurons to tell their deviation, got 1; use another.")
        wide = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
        mean = wide.mean(-1, keepdim=True)
        variance = (wide - mean).square().mean(-1, keepdim=True) + torch.finfo(wide.dtype).tiny  # sqrt'(0) is inf
        return F.relu(wide - (mean + self._quantile * variance.sqrt())).to(x.dtype)

    def extra_repr(self) -> str:
        """The density."""
        return f"density={self.density:g}"
