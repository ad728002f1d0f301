"""How much of a Gram matrix lies on its diagonal."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor

from lazyneuron.core.errors import ShapeError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Diagonality:
    """``log10(sum of |diagonal|^q / sum of |rest|^q)`` for q = 1 and 2, of three matrices.

    Large values mean that ``eta^T K K^T eta`` is in effect a sum of ``|k_i|^2 eta_i^2``, so that it can only shrink
    with the effective gradients themselves.

    Attributes:
        weights: of ``K K^T``.
        gradients: of ``g g^T``, a mean over tokens with a gradient; NaN without one.
        product: of ``K K^T`` times ``g g^T``, entry by entry; likewise.
    """

    weights: tuple[float, float]
    gradients: tuple[float, float]
    product: tuple[float, float]

    @staticmethod
    def mean(parts: Sequence[tuple[int, Diagonality]]) -> Diagonality:
        """The mean of several, weighted by their numbers of tokens."""
        total = sum(count for count, _ in parts)

        def of(name: str) -> tuple[float, float]:
            first, second = (sum(n * getattr(d, name)[q] for n, d in parts) / total for q in (0, 1))
            return first, second

        return Diagonality(weights=of("weights"), gradients=of("gradients"), product=of("product"))


def diagonality(weight: Tensor, gradients: Tensor) -> Diagonality:
    """Compare diagonals with the rest.

    Args:
        weight: K, (neurons, d_in), at least 2 neurons.
        gradients: g, (tokens, neurons).

    Returns:
        The six numbers; infinite where the rest is 0.

    Raises:
        ShapeError: the shapes do not fit.

    Cost: ``neurons^2 (d_in + 2 tokens)`` multiply-adds in float64.

    Source: a statistic in the authors' code to Peng, Qi, Shi, Gao (2023), arXiv 2309.03004; the purpose is our reading.
    """
    if weight.dim() != 2 or gradients.dim() != 2 or len(weight) != gradients.shape[1] or len(weight) < 2:
        raise ShapeError(
            f"K is (neurons, d_in) and g (tokens, neurons) with at least 2 neurons, got {tuple(weight.shape)} and "
            f"{tuple(gradients.shape)}."
        )
    k, g = weight.double(), gradients.double().abs()
    gram = (k @ k.t()).abs()
    found: dict[str, list[float]] = {"weights": [], "gradients": [], "product": []}
    for q in (1, 2):
        a, m = gram**q, g**q
        diagonal = a.diagonal()
        found["weights"].append(_log_share(diagonal.sum(), a.sum()))
        found["gradients"].append(_log_share(m.square().sum(-1), m.sum(-1).square()))
        found["product"].append(_log_share(m.square() @ diagonal, ((m @ a) * m).sum(-1)))
    return Diagonality(**{name: (v[0], v[1]) for name, v in found.items()})


def _log_share(diagonal: Tensor, total: Tensor) -> float:
    """Mean over tokens of the logarithm, tokens without any gradient left out."""
    there = total > 0
    # a difference of equal sums may round to below 0
    rest = (total - diagonal).clamp(min=0)[there] if total.dim() else (total - diagonal).clamp(min=0)
    logs = torch.log10((diagonal[there] if total.dim() else diagonal) / rest)
    return float(logs.mean())
