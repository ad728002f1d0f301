"""How close the changed model's sentence embeddings are to the original's."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from lazyneuron.core.errors import ShapeError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Quality:
    """Agreement of two sets of embeddings of the same lines.

    Attributes:
        mean_cosine: mean over the lines of the cosine between both embeddings.
        top1_agreement: share of the lines whose nearest other line is the same in both.
        rank_correlation: Spearman's correlation of all pairwise similarities.
        n_lines: how many lines.
    """

    mean_cosine: float
    top1_agreement: float
    rank_correlation: float
    n_lines: int


def quality(embeddings: Tensor, reference: Tensor) -> Quality:
    """Compare embeddings with reference ones.

    Args:
        embeddings: one row for each line, of any length but 0.
        reference: the original's, in the same order.

    Returns:
        The three agreements.

    Raises:
        ShapeError: the shapes differ, or there are fewer than three lines.

    Cost: memory for a few matrices of lines x lines.
    """
    if embeddings.shape != reference.shape or embeddings.dim() != 2 or len(embeddings) < 3:
        raise ShapeError(
            f"Embeddings to compare have the same shape and at least 3 rows, got {tuple(embeddings.shape)} and "
            f"{tuple(reference.shape)}."
        )
    ours = torch.nn.functional.normalize(embeddings.double(), dim=-1)
    theirs = torch.nn.functional.normalize(reference.double(), dim=-1)
    similar, wanted = ours @ ours.t(), theirs @ theirs.t()
    upper = torch.triu_indices(len(ours), len(ours), offset=1)
    return Quality(
        mean_cosine=float((ours * theirs).sum(-1).mean()),
        top1_agreement=float((_nearest(similar) == _nearest(wanted)).double().mean()),
        rank_correlation=_spearman(similar[upper[0], upper[1]], wanted[upper[0], upper[1]]),
        n_lines=len(ours),
    )


def _nearest(similarities: Tensor) -> Tensor:
    return similarities.clone().fill_diagonal_(-torch.inf).argmax(dim=1)


def _ranks(values: Tensor) -> Tensor:
    """Ranks from 0, equal values sharing their mean rank."""
    group: Tensor
    counts: Tensor
    _, group, counts = torch.unique(values, return_inverse=True, return_counts=True)
    last = counts.cumsum(0)
    return (last - (counts + 1) / 2)[group]


def _spearman(a: Tensor, b: Tensor) -> float:
    ranks = torch.stack([_ranks(a), _ranks(b)]).double()
    centred = ranks - ranks.mean(dim=1, keepdim=True)
    norms = centred.norm(dim=1)
    return float((centred[0] @ centred[1]) / (norms[0] * norms[1])) if bool((norms > 0).all()) else float("nan")
