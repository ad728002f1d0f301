"""Noise on the weights of a linear layer that is fresh for every token."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from lazyneuron.blocks.block import LinearSite
from lazyneuron.core.arguments import described
from lazyneuron.core.errors import ConfigError
from lazyneuron.core.numbers import real


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

    def __call__(self, module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor | None:
        """The output with noise, or None for the output as it is."""
        if not module.training:
            return None
        return output + token_noise(args[0], output, weight=self._site.effective_weight, rho=self._rho)


@torch.no_grad()
def skip_noise(x: Tensor, *, rho: float, generator: torch.Generator | None = None) -> Tensor:
    """The noise that a skip connection gets: ``rho / (10 sqrt(d)) ||x_t|| xi_t``.

    A skip connection is a layer whose weights are the identity, with ``1 / sqrt(d)`` as their root mean square; so this
    is :func:`token_noise` of that layer at a tenth of the strength.

    Args:
        x: what is carried on, (..., d).
        rho: strength.
        generator: the source; None uses torch's own.

    Returns:
        A tensor like ``x``, without gradient.
    """
    sigma = rho / (10 * math.sqrt(x.shape[-1]))
    length = torch.linalg.vector_norm(x.float(), dim=-1, keepdim=True)
    noise: Tensor = (sigma * length * torch.randn(x.shape, generator=generator, device=x.device)).to(x.dtype)
    return noise


class SkipNoise:
    """Two forward hooks that give the skip connection around a pre-norm block its noise, in training mode only.

    The first stands after the norm, whose input is what the skip connection carries; the second adds the noise to what
    the block returns, which is added to just that.
    """

    def __init__(self, rho: float) -> None:
        self.rho = rho
        self.noise: Tensor | None = None

    def after_norm(self) -> _AfterNorm:
        """The hook of the norm."""
        return _AfterNorm(self)

    def after_block(self) -> _AfterBlock:
        """The hook of the block."""
        return _AfterBlock(self)


class _AfterNorm:
    only_in_training = True

    def __init__(self, skip: SkipNoise) -> None:
        self._skip = skip

    def __call__(self, module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        if module.training:
            self._skip.noise = skip_noise(args[0], rho=self._skip.rho)


class _AfterBlock:
    only_in_training = True

    def __init__(self, skip: SkipNoise) -> None:
        self._skip = skip

    def __call__(self, module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor | None:
        noise, self._skip.noise = self._skip.noise, None
        return output + noise.view_as(output) if module.training and noise is not None else None


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
