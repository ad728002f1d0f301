"""What noise leaves of the nearest neighbours: the measure in which a changed encoder's agreement is to be read."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def noisy(embeddings: Tensor, cosine: float, *, generator: torch.Generator) -> Tensor:
    """Embeddings with noise that has their own covariance, each at one cosine to what it was.

    Args:
        embeddings: (lines, width), of length 1.
        cosine: of every line, in (0, 1].
        generator: draws the noise.

    Returns:
        (lines, width), of length 1.
    """
    centred = embeddings - embeddings.mean(0)
    mixed = torch.randn(len(centred), len(centred), generator=generator) @ centred
    across = F.normalize(mixed - (mixed * embeddings).sum(1, keepdim=True) * embeddings, dim=1)
    moved: Tensor = cosine * embeddings + (1 - cosine**2) ** 0.5 * across
    return moved


def agreement_under_noise(embeddings: Tensor, cosine: float, *, seeds: int = 4) -> float:
    """The share of nearest neighbours that such noise leaves, a mean of several draws."""
    draws = (noisy(embeddings, cosine, generator=torch.Generator().manual_seed(seed)) for seed in range(seeds))
    wanted = _nearest(embeddings)
    return sum(float((_nearest(draw) == wanted).double().mean()) for draw in draws) / seeds


def _nearest(embeddings: Tensor) -> Tensor:
    return (embeddings @ embeddings.t()).fill_diagonal_(-torch.inf).argmax(dim=1)


def cosine_for(embeddings: Tensor, agreement: float, *, step: float = 0.0005) -> float:
    """The cosine that such noise has to leave for a share of the nearest neighbours, to half a ``step``.

    Args:
        embeddings: (lines, width), of length 1.
        agreement: the share, in (0, 1).
        step: width of the bracket that ends the search.
    """
    low, high = 0.5, 1.0
    while high - low > step:
        middle = (low + high) / 2
        low, high = (middle, high) if agreement_under_noise(embeddings, middle) < agreement else (low, middle)
    return (low + high) / 2
