"""Activations whose value at a neuron depends on the whole token: the largest neurons fire, the others do not."""

from __future__ import annotations

import statistics

import torch
import torch.nn.functional as F
from torch import Tensor

from lazyneuron.core.arguments import check_fraction
from lazyneuron.core.errors import ConfigError, ShapeError


def top_k(z: Tensor, k: float) -> Tensor:
    """``relu(z)`` at the ``k`` largest neurons of each token, else 0; of equal values some are kept.

    Raises:
        ShapeError: there are fewer than ``k`` neurons.
    """
    if z.shape[-1] < k:
        raise ShapeError(f"TopK keeps {int(k)} neurons but got {z.shape[-1]} only; choose a smaller k.")
    r = F.relu(z)
    values, places = r.topk(int(k), dim=-1, sorted=False)
    return torch.zeros_like(r).scatter(-1, places, values)


def statistical_top_k(z: Tensor, density: float) -> Tensor:
    """``relu(z - (mean + q * std))`` over each token's neurons, ``q`` the normal quantile of ``1 - density``.

    Raises:
        ShapeError: there is a single neuron.
    """
    if z.shape[-1] < 2:
        raise ShapeError("StatisticalTopK needs at least 2 neurons to tell their deviation, got 1; use another.")
    wide = z.float() if z.dtype in (torch.float16, torch.bfloat16) else z
    mean = wide.mean(-1, keepdim=True)
    variance = (wide - mean).square().mean(-1, keepdim=True) + torch.finfo(wide.dtype).tiny  # sqrt'(0) is inf
    quantile = statistics.NormalDist().inv_cdf(1 - density)
    return F.relu(wide - (mean + quantile * variance.sqrt())).to(z.dtype)


def block_top_k(z: Tensor, k: float, size: float) -> Tensor:
    """``relu(z)`` in the ``k`` groups of ``size`` neighbours that have the largest sum of squares, else 0.

    Raises:
        ShapeError: the neurons do not divide into groups, or there are fewer than ``k``.
    """
    width, groups = z.shape[-1], z.shape[-1] // int(size)
    if width % int(size) or groups < k:
        raise ShapeError(
            f"BlockTopK keeps {int(k)} groups of {int(size)} neurons but got {width} neurons; "
            "choose a size that divides them and a smaller k."
        )
    r = F.relu(z).reshape(*z.shape[:-1], groups, int(size))
    strength = r.detach().float().square().sum(-1)
    places = strength.topk(int(k), dim=-1, sorted=False).indices
    kept = torch.zeros_like(strength).scatter(-1, places, 1.0).to(r.dtype)
    value: Tensor = (r * kept.unsqueeze(-1)).flatten(-2)
    return value


def check_count(k: float, size: float = 1) -> None:
    """Refuse numbers that are no counts.

    Raises:
        ConfigError: one is no whole number >= 1.
    """
    for value in (k, size):
        if isinstance(value, bool) or not value >= 1 or value != int(value):
            raise ConfigError(f"`k` and `size` are numbers of neurons, whole numbers >= 1, got {k!r} and {size!r}.")


def check_density(density: float) -> None:
    """Refuse what is no density.

    Raises:
        ConfigError: it is not in (0, 1).
    """
    check_fraction("density", density)
