"""Augmented flatness, and the identity that ties it to how densely a block's derivative fires."""

from __future__ import annotations

import dataclasses
import math
from typing import Protocol

import torch
from torch import Tensor

from lazyneuron.core.arguments import described
from lazyneuron.core.errors import DataError, ShapeError


class HasDerivative(Protocol):
    """An activation function as far as this room cares."""

    def derivative(self, z: Tensor) -> Tensor:
        """The derivative at each pre-activation."""
        ...


class HasValue(Protocol):
    """An activation function that is evaluated."""

    def __call__(self, z: Tensor, /) -> Tensor:
        """The value at each pre-activation."""


def effective_gradient(p: Tensor, g: Tensor, activation: HasDerivative) -> Tensor:
    """The loss's gradient with respect to pre-activations.

    Args:
        p: pre-activations (..., neurons).
        g: the gradient with respect to the hidden activations, of the same shape.
        activation: the function; for a gated block multiply ``g`` by what the function's value is multiplied by.

    Returns:
        ``g * s'(p)``, with ``s'`` 0 where the function is flat.
    """
    return g * activation.derivative(p).to(g.dtype)


def feature_gradient(up: Tensor, eta: Tensor) -> Tensor:
    """The loss's gradient with respect to a block's input: ``K^T eta``.

    Args:
        up: K, of shape (neurons, d_in).
        eta: effective gradients (..., neurons).

    Returns:
        (..., d_in). Its squared length is ``eta^T K K^T eta``.
    """
    return eta @ up


def augmented_flatness(inputs: Tensor, output_grads: Tensor, *, mask: Tensor | None = None) -> float:
    """The squared gradient norm of a weight matrix of which every token has a copy of its own, a mean over samples.

    Args:
        inputs: what the matrix multiplies, (samples, tokens, d_in).
        output_grads: per-sample gradients with respect to its outputs, (samples, tokens, d_out).
        mask: nonzero where a token is real, (samples, tokens).

    Returns:
        ``mean over samples of sum_t |output_grads_t|^2 |inputs_t|^2``: AS_K of ``up`` with (x, eta), AS_V of ``down``
        with (a, gV).

    Raises:
        ShapeError: the leading axes differ.
        DataError: the mask is no tensor.

    Source: Peng, Zhang, Qi, Gao, Shi (2026), arXiv 2605.25612, by the authors' code.
    """
    if inputs.shape[:2] != output_grads.shape[:2] or inputs.dim() != 3 or output_grads.dim() != 3:
        raise ShapeError(
            f"Inputs and output gradients are (samples, tokens, width), got {tuple(inputs.shape)} and "
            f"{tuple(output_grads.shape)}."
        )
    products = inputs.double().square().sum(-1) * output_grads.double().square().sum(-1)
    return float((products * _real(mask, inputs)).sum() / len(inputs))


@dataclasses.dataclass(frozen=True, kw_only=True)
class IdentityCheck:
    """Both sides of the density identity.

    Attributes:
        density: share of (token, neuron) pairs whose derivative is not zero.
        as_up: AS_K.
        coefficient: ``T n E[|x|^2 g^2 s'^2 | s' != 0]``; NaN when no derivative is nonzero.
        predicted: ``as_up / coefficient``.
        residual: relative difference of the two; above rounding it is a fault.
        degenerate: nothing fires, or no gradient reaches what fires: the identity is 0 / 0.
    """

    density: float
    as_up: float
    coefficient: float
    predicted: float
    residual: float
    degenerate: bool


def density_identity(
    x: Tensor,
    p: Tensor,
    g: Tensor,
    activation: HasDerivative,
    *,
    mask: Tensor | None = None,
    gate_value: Tensor | None = None,
) -> IdentityCheck:
    """Check ``density = AS_K / (T n E[|x|^2 g^2 s'^2 | s' != 0])``, which is exact.

    Args:
        x: what ``up`` (of a gated block: ``gate``) receives, (samples, tokens, d_in).
        p: its pre-activations (samples, tokens, neurons).
        g: per-sample gradients with respect to the hidden activations, of the same shape. A common factor cancels.
        activation: the function.
        mask: nonzero where a token is real, (samples, tokens); T is then the mean number of real tokens.
        gate_value: for a gated block, what the function's value is multiplied by.

    Returns:
        Both sides.

    Raises:
        ShapeError: the shapes do not fit.
        DataError: the mask is no tensor.

    Source: the identity of Peng et al. (2026), arXiv 2605.25612; the factor ``s'^2``, which the authors' code leaves
        out and without which only ReLU satisfies it, and the gated and masked forms are ours.
    """
    _same_shape(x, p, g)
    slope = activation.derivative(p.double())
    return _check(x, slope, g if gate_value is None else g * gate_value, mask)


def gated_density_identity(
    x: Tensor, p: Tensor, g: Tensor, activation: HasValue, *, mask: Tensor | None = None
) -> IdentityCheck:
    """Check a gated block's second identity, ``mean 1[s != 0] = AS_up / (T n E[|x|^2 g^2 s(p)^2 | s != 0])``.

    The gradient of what ``up`` returns is ``s(p) g``, so here the function's value plays the part that its derivative
    plays for the gate.

    Args:
        x: what ``gate`` and ``up`` receive, (samples, tokens, d_in).
        p: pre-activations of ``gate`` (samples, tokens, neurons).
        g: per-sample gradients with respect to the hidden activations ``s(p) u``, of the same shape.
        activation: the function.
        mask: nonzero where a token is real, (samples, tokens).

    Returns:
        Both sides: ``density`` is the share of pairs with ``s(p) != 0``, ``as_up`` is AS of ``up``.

    Raises:
        ShapeError: the shapes do not fit.
        DataError: the mask is no tensor.

    Source: ours; the papers do not cover gated blocks.
    """
    _same_shape(x, p, g)
    return _check(x, activation(p.double()), g, mask)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SquareCheck:
    """The identity's form for the squared length of hidden activations.

    Attributes:
        hidden_square: ``E |a|^2`` over tokens.
        as_down: AS_V.
        coefficient: c_L2, ``E |gV|^2`` over tokens.
        predicted: ``AS_V / (T c_L2)``; NaN where no gradient arrives.
        ratio: ``predicted / hidden_square``: 1 exactly where ``|a|^2`` and ``|gV|^2`` are uncorrelated.
    """

    hidden_square: float
    as_down: float
    coefficient: float
    predicted: float
    ratio: float


def hidden_square_identity(a: Tensor, output_grads: Tensor, *, mask: Tensor | None = None) -> SquareCheck:
    """Compare ``E |a|^2`` with ``AS_V / (T c_L2)``, where ``c_L2 = E |gV|^2``.

    Args:
        a: hidden activations (samples, tokens, neurons).
        output_grads: gV, per-sample gradients with respect to the block's output, (samples, tokens, d_out).
        mask: nonzero where a token is real, (samples, tokens); T is then the mean number of real tokens.

    Returns:
        Both sides. Unlike the identity for the density it holds only without correlation.

    Raises:
        ShapeError: the leading axes differ.
        DataError: the mask is no tensor.

    Source: Peng et al. (2026), arXiv 2605.25612, by the authors' code.
    """
    as_down = augmented_flatness(a, output_grads, mask=mask)
    real = _real(mask, a)
    count = int(real.sum())

    def mean_square(t: Tensor) -> float:
        return float(t.double().square().sum(-1)[real].sum()) / count if count else math.nan

    squares, coefficient = mean_square(a), mean_square(output_grads)
    predicted = as_down * len(a) / count / coefficient if coefficient > 0 else math.nan
    return SquareCheck(
        hidden_square=squares,
        as_down=as_down,
        coefficient=coefficient,
        predicted=predicted,
        ratio=predicted / squares if squares > 0 else math.nan,
    )


def _real(mask: Tensor | None, tokens: Tensor) -> Tensor:
    """Which of the tokens (samples, tokens, width) are real, (samples, tokens)."""
    if mask is None:
        return torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device)
    if not isinstance(mask, Tensor):
        raise DataError(f"A mask is a tensor, nonzero where a token is real, got {described(mask)}.")
    if mask.shape != tokens.shape[:2]:
        raise ShapeError(f"A mask is (samples, tokens), here {tuple(tokens.shape[:2])}, got {tuple(mask.shape)}.")
    return (mask != 0).to(tokens.device)


def _same_shape(x: Tensor, p: Tensor, g: Tensor) -> None:
    if x.shape[:2] != p.shape[:2] or p.shape != g.shape or p.dim() != 3:
        raise ShapeError(
            f"x, p and g are (samples, tokens, width) with p and g alike, got {tuple(x.shape)}, {tuple(p.shape)}, "
            f"{tuple(g.shape)}."
        )


def _check(x: Tensor, slope: Tensor, g: Tensor, mask: Tensor | None) -> IdentityCheck:
    """Both sides for effective gradients ``g * slope``."""
    x, eta = x.double(), g.double() * slope
    real = _real(mask, eta)
    flatness = augmented_flatness(x, eta, mask=real)
    fires = (slope != 0) & real[..., None]
    pairs, neurons = int(real.sum()), eta.shape[-1]
    density = int(fires.sum()) / max(pairs * neurons, 1)
    terms = (x.square().sum(-1, keepdim=True) * eta.square())[fires]
    coefficient = pairs / len(eta) * neurons * float(terms.mean()) if terms.numel() else math.nan
    degenerate = not coefficient > 0
    predicted = math.nan if degenerate else flatness / coefficient
    return IdentityCheck(
        density=density,
        as_up=flatness,
        coefficient=coefficient,
        predicted=predicted,
        residual=math.nan if degenerate else abs(predicted - density) / density,
        degenerate=degenerate,
    )
