"""Noise on the weights of a linear layer that is fresh for every token."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from lazyneuron.core.errors import ConfigError


class TokenWeightNoise(nn.Module):
    """In training ``y_t = W x_t + b + sigma * ||x_t|| * xi_t``, ``xi_t ~ N(0, I)``; in evaluation the layer itself.

    This has the law of an independent noise ``N(0, sigma**2)`` on every weight for every token, at the price of one
    random vector a token. ``sigma`` is ``rho`` times the root mean square of the weights.

    Args:
        linear: the layer, whose weights stay trainable.
        rho: strength, a number >= 0.
        generator: the source of the noise, on the layer's device; None uses torch's own.

    Raises:
        ConfigError: ``rho`` out of range.

    Cost: a random number for each output and a norm for each token, in training.

    Source: Peng et al., 2023 (MagicSynapse).
    """

    def __init__(self, linear: nn.Linear, rho: float = 0.1, *, generator: torch.Generator | None = None) -> None:
        super().__init__()
        if not (math.isfinite(rho) and rho >= 0):
            raise ConfigError(f"`rho` is a finite number >= 0, got {rho}.")
        self.linear = linear
        self.rho = float(rho)
        self._source = _Source(generator)

    def forward(self, x: Tensor) -> Tensor:
        """The layer's output, with noise in training; shaped (..., out)."""
        y: Tensor = self.linear(x)
        if not self.training or self.rho == 0:
            return y
        with torch.no_grad():
            weight = self.linear.weight.detach()
            sigma = self.rho * weight.float().square().mean().sqrt()
            length = torch.linalg.vector_norm(x.float(), dim=-1, keepdim=True)
            xi = torch.randn(y.shape, generator=self._source.generator, device=y.device)
            noise = (sigma * length * xi).to(y.dtype)
        noisy: Tensor = y + noise
        return noisy

    @property
    def generator(self) -> torch.Generator | None:
        """The source of the noise; None for torch's own."""
        return self._source.generator

    def extra_repr(self) -> str:
        """The strength."""
        return f"rho={self.rho:g}"


class _Source:
    """A generator that can be copied with the module that draws from it."""

    def __init__(self, generator: torch.Generator | None) -> None:
        self.generator = generator

    def __deepcopy__(self, memo: object) -> _Source:
        if self.generator is None:
            return _Source(None)
        twin = torch.Generator(self.generator.device)
        twin.set_state(self.generator.get_state())
        return _Source(twin)
