"""Noise on the weights of a linear layer that is fresh for every token."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lazyneuron.blocks.block import LinearSite
from lazyneuron.core.arguments import described
from lazyneuron.core.errors import ConfigError
from lazyneuron.core.numbers import real
from lazyneuron.induce.modules.installed import first_of


class TokenWeightNoise(nn.Module):
    """In training ``y_t = W x_t + b + sigma * ||x_t|| * xi_t``, ``xi_t ~ N(0, I)``; in evaluation the layer itself.

    This has the law of an independent noise ``N(0, sigma**2)`` on every weight for every token, at the price of one
    random vector a token. ``sigma`` is ``rho`` times the root mean square of the weights.

    Args:
        linear: the layer, whose weights stay trainable.
        rho: strength, a number >= 0.
        generator: the source of the noise, on the layer's device; None uses torch's own.

    Raises:
        ConfigError: the layer is no ``torch.nn.Linear``, or ``rho`` is no finite number >= 0.

    Cost: a random number for each output and a norm for each token, in training.

    Source: Peng et al., 2023 (MagicSynapse).
    """

    def __init__(self, linear: nn.Linear, rho: float = 0.1, *, generator: torch.Generator | None = None) -> None:
        super().__init__()
        if not isinstance(linear, nn.Linear):
            raise ConfigError(
                f"TokenWeightNoise takes a torch.nn.Linear, got {described(linear)}; pass the layer itself."
            )
        self.linear = linear
        self.rho = real(rho, "`rho`", least=0)
        self._source = _Source(generator)

    def forward(self, x: Tensor) -> Tensor:
        """The layer's output, with noise in training; shaped (..., out)."""
        y: Tensor = self.linear(x)
        if not self.training or self.rho == 0:
            return y
        weight = LinearSite(name="linear", module=self.linear).effective_weight
        return y + token_noise(x, y, weight=weight, rho=self.rho, generator=self._source.generator)

    @property
    def generator(self) -> torch.Generator | None:
        """The source of the noise; None for torch's own."""
        return self._source.generator

    def extra_repr(self) -> str:
        """The strength."""
        return f"rho={self.rho:g}"


@torch.no_grad()
def token_noise(
    x: Tensor, y: Tensor, *, weight: Tensor, rho: float, generator: torch.Generator | None = None
) -> Tensor:
    """The noise that a layer's output gets.

    Args:
        x: what went into the layer, (..., in).
        y: what came out, (..., out); only its shape, dtype and device matter.
        weight: the layer's weight; ``rho`` counts in its root mean square.
        rho: strength.
        generator: the source; None uses torch's own.

    Returns:
        A tensor like ``y``, without gradient.
    """
    sigma = rho * weight.detach().float().square().mean().sqrt()
    length = torch.linalg.vector_norm(x.float(), dim=-1, keepdim=True)
    xi = torch.randn(y.shape, generator=generator, device=y.device)
    noise: Tensor = (sigma * length * xi).to(y.dtype)
    return noise


class NoiseHook:
    """A forward hook that adds the noise to a layer's output in training mode and does nothing in evaluation.

    Unlike :class:`TokenWeightNoise` it leaves the layer's place in the model and its ``state_dict`` keys as they are.
    """

    only_in_training = True

    def __init__(self, site: LinearSite, rho: float) -> None:
        self._site = site
        self._rho = rho

    def __call__(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Tensor
    ) -> Tensor | None:
        """The output with noise, or None for the output as it is."""
        if not module.training:
            return None
        x = first_of(args, kwargs)
        return output + token_noise(x, output, weight=self._site.effective_weight, rho=self._rho)


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
