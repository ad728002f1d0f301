"""Augmented flatness, and the identity that ties it to how densely a block's derivative fires."""

from __future__ import annotations

import dataclasses
import math
from typing import Protocol

import torch
from torch import Tensor

from lazyneuron.core.errors import ShapeError


class HasDerivative(Protocol):
    """An activation function as far as this room cares."""

    def derivative(self, z: Tensor) -> Tensor:
        """The derivative at each pre-activation."""
        ...


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
        with
        (a, gV).

    Raises:
        ShapeError: the leading axes differ.

    Source: Peng, Zhang, Qi, Gao, Shi (2026), arXiv 2605.25612, by the authors' code.
    """
    if inputs.shape[:2] != output_grads.shape[:2] or inputs.dim() != 3 or output_grads.dim() != 3:
        raise ShapeError(
            f"Inputs and output gradients are (samples, tokens, width), got {tuple(inputs.shape)} and "
            f"{tuple(output_grads.shape)}."
        )
    products = inputs.double().square().sum(-1) * output_grads.double().square().sum(-1)
    if mask is not None:
        products = products * (mask != 0)
    return float(products.sum() / len(inputs))


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

    Source: the identity of Peng et al. (2026), arXiv 2605.25612; the factor ``s'^2``, which the authors' code leaves
        out and
        without which only ReLU satisfies it, and the gated and masked forms are ours.
    """
    if x.shape[:2] != p.shape[:2] or p.shape != g.shape or p.dim() != 3:
        raise ShapeError(
            f"x, p and g are (samples, tokens, width) with p and g alike, got {tuple(x.shape)}, {tuple(p.shape)}, "
            f"{tuple(g.shape)}."
        )
    x, p, g = x.double(), p.double(), g.double()
    slope = activation.derivative(p)
    real = torch.ones(p.shape[:2], dtype=torch.bool, device=p.device) if mask is None else mask != 0
    factor = g if gate_value is None else g * gate_value.double()
    eta = factor * slope
    as_up = augmented_flatness(x, eta, mask=real)
    fires = (slope != 0) & real[..., None]
    pairs, neurons = int(real.sum()), p.shape[-1]
    density = int(fires.sum()) / max(pairs * neurons, 1)
    tokens = pairs / len(p)
    terms = (x.square().sum(-1, keepdim=True) * eta.square())[fires]
    coefficient = tokens * neurons * float(terms.mean()) if terms.numel() else math.nan
    degenerate = not coefficient > 0
    predicted = math.nan if degenerate else as_up / coefficient
    return IdentityCheck(
        density=density,
        as_up=as_up,
        coefficient=coefficient,
        predicted=predicted,
        residual=math.nan if degenerate else abs(predicted - density) / density,
        degenerate=degenerate,
    )
