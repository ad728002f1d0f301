"""A low-rank predictor of who fires, in the manner of Deja Vu (Liu et al., ICML 2023), fitted in closed form."""

from __future__ import annotations

import dataclasses

import torch
import torch.nn.functional as F
from torch import Tensor

from lazyneuron.blocks import MLPBlock
from lazyneuron.experiments.bench.blocks.baselines.baseline import (
    Baseline,
    Built,
    Problem,
    dense_output,
    hidden,
    size_bytes,
)
from lazyneuron.experiments.bench.blocks.baselines.rows import MOST_GATHERED, SomeNeurons

RANK_SHARE = 1 / 4  # of d; published ones have about 1/12, which expects most neurons on weights without structure
RECALL = 0.9
HELD_OUT = 1 / 8  # of the calibration tokens: on those that it is fitted on the predictor finds too much


def build(problem: Problem) -> Built:
    """Rank d / 4; the threshold finds 0.9 of the firing pairs of calibration tokens that were held out."""
    rank = max(1, round(RANK_SHARE * problem.block.d_in))
    built = with_rank(problem.block, problem.calibration, rank=rank, recall=RECALL)
    assert built.used is not None
    share = float(built.used(problem.inputs[0]).float().mean())
    computed = "densely, too many are expected" if share == 1 else f"{share:.2f} of the neurons"
    return dataclasses.replace(built, note=f"{built.note}; computes {computed}")


def with_rank(block: MLPBlock, calibration: Tensor, *, rank: int, recall: float) -> Built:
    """Only neurons that the predictor expects to fire on some token are computed, for all tokens."""
    some = SomeNeurons(block)
    fitted_on = round((1 - HELD_OUT) * len(calibration))
    inner, outer = fit(block, calibration[:fitted_on], rank)
    bias, held_out = block.first.bias, calibration[fitted_on:]
    scores = F.linear(F.linear(held_out, inner), outer, bias)
    threshold = threshold_for(scores, hidden(block, held_out) != 0, recall)

    def predicted(x: Tensor) -> Tensor:
        return (F.linear(F.linear(x, inner), outer, bias) >= threshold).any(0)

    def run(x: Tensor) -> Tensor:
        index = predicted(x).nonzero()[:, 0]
        if len(index) <= MOST_GATHERED * block.d_hidden:
            return some(x, index)
        return dense_output(block, hidden(block, x))

    def used(x: Tensor) -> Tensor:
        mask = predicted(x)
        everything = int(mask.sum()) > MOST_GATHERED * block.d_hidden
        return (mask | everything).expand(len(x), -1)

    return Built(
        run=run,
        added_bytes=size_bytes(inner, outer, some.down_rows),
        used=used,
        note=f"rank {rank}, recall {recall:g} on held-out tokens",
    )


def fit(block: MLPBlock, calibration: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """The best rank-r approximation of the deciding layer on the calibration tokens.

    Returns:
        ``inner`` (rank, d_in) and ``outer`` (d_hidden, rank): ``outer inner x`` has the least squared error to
        ``weight x`` among all of that rank.

    Source:
        Reduced-rank regression (Izenman, 1975): project on the leading principal directions of the fitted values.
    """
    weight, x = block.first.weight.double(), calibration.double()
    covariance = x.T @ x / len(x)
    ridge = 1e-9 * float(covariance.diagonal().mean())
    root = torch.linalg.cholesky(covariance + ridge * torch.eye(len(covariance), dtype=torch.float64))
    fitted = weight @ root
    directions = torch.linalg.eigh(fitted.T @ fitted).eigenvectors[:, -rank:]
    outer = torch.linalg.qr(fitted @ directions).Q
    inner = outer.T @ weight
    return inner.to(block.first.weight.dtype), outer.to(block.first.weight.dtype)


def threshold_for(scores: Tensor, fires: Tensor, recall: float) -> float:
    """The largest threshold that this share of the firing pairs reaches; minus infinity when nothing fires."""
    firing = scores[fires].float()
    if firing.numel() == 0:
        return float("-inf")
    rank = min(firing.numel(), int((1 - recall) * firing.numel()) + 1)
    return float(firing.kthvalue(rank).values)


BASELINE = Baseline(name="low-rank", about="low-rank predictor of who fires", exact=False, build=build)
