"""Which widths and directions of buckets to try; the finest is the one in which a row still has others beside it."""

from __future__ import annotations

import torch
from torch import Tensor

from lazyneuron.route.affine_hash import AffineHash, random_hash
from lazyneuron.route.moments import Frame, solve
from lazyneuron.route.pyramid import MOST, Pyramid
from lazyneuron.route.table import BucketTable

DIRECTIONS = ("gaussian", "orthogonal", "learned")
COARSEST = 8.0  # width in deviations
_ROUNDS, _FLOOR = 2, 0.05


def hash_for(frame: Frame, *, hashes: int, metric: Tensor | None, orthogonal: bool, seed: int) -> AffineHash:
    """A hash of raw rows, at the finest width that is ever tried.

    Args:
        frame: the standardisation, which goes into directions and offsets.
        hashes: number of directions.
        metric: (features, features) applied to standardised rows before hashing, or None.
        orthogonal: directions at right angles.
        seed: of the random numbers.
    """
    g = torch.Generator().manual_seed(seed)
    width = COARSEST / (1 << MOST)
    drawn = random_hash(frame.features, hashes, width=COARSEST, generator=g, orthogonal=orthogonal)
    stretched = drawn.directions if metric is None else metric @ drawn.directions
    raw = stretched / frame.scale[:, None]
    return AffineHash(directions=raw, offsets=drawn.offsets - frame.mean @ raw, width=width)


def finest_shift(vectors: Tensor, rows: float, *, others: float, impl: str = "auto") -> int:
    """The smallest shift at which a row can expect so many others in its bucket.

    The chance that two rows meet is estimated from all pairs of the sample.

    Args:
        vectors: (sample, hashes) int32 at shift 0.
        rows: how many rows there will be.
        others: wanted number of other rows.
        impl: as for :class:`BucketTable`.
    """
    n = len(vectors)
    if n < 2:
        return MOST
    counts = torch.ones(n, dtype=torch.float64)
    for shift in range(MOST + 1):
        table = BucketTable(vectors.shape[1], impl=impl)
        slots = table.add(vectors)
        counts = torch.zeros(len(table), dtype=torch.float64).index_add_(0, slots, counts)
        meet = float((counts * (counts - 1)).sum()) / (n * (n - 1))
        if meet * (rows - 1) >= others:
            return shift
        vectors = table.vectors >> 1
    return MOST


def learned_metric(x: Tensor, y: Tensor, frame: Frame, *, hashes: int, seed: int, impl: str) -> Tensor:
    """A change of metric that makes buckets long where the target is flat and short where it is steep.

    Affine functions are fitted in buckets; the mean outer product of their slopes has the directions in which the
    target moves, and standardised rows are stretched along them by the root of its eigenvalues, the largest one taken
    as 1 and none below 0.05. Done twice, the second time with buckets of the new shape.

    Args:
        x, y: a sample of rows, raw, and their targets (float64).
        frame: standardisation; its degree does not matter.
        hashes, seed, impl: as for the tables.

    Returns:
        (features, features), symmetric.

    Source: the mean outer product of gradients is a classical estimate of relevant directions (for example Trivedi,
    Wang, Kpotufe, Shakhnarovich, 2014); its use for buckets is ours.
    """
    affine_frame = Frame(mean=frame.mean, scale=frame.scale, outputs=frame.outputs, degree=1)
    metric, z = torch.eye(frame.features, dtype=torch.float64), frame.standardise(x)
    others = 4.0 * (1 + frame.features)
    for number in range(_ROUNDS):
        affine = hash_for(frame, hashes=hashes, metric=metric, orthogonal=True, seed=seed + number)
        vectors = affine.vectors(x, impl=impl)
        base = finest_shift(vectors, len(x), others=others, impl=impl)
        pyramid = Pyramid(affine, affine_frame, capacity=len(x), impl=impl, base=base)
        pyramid.add(pyramid.vectors(x), z, y)
        sums = pyramid.sums[: len(pyramid.table)]
        flat = torch.zeros(len(sums), affine_frame.columns, dtype=torch.float64)
        values, _ = solve(sums, affine_frame, parent=flat, shrinkage=1.0)
        slopes = values.reshape(len(sums), frame.outputs, -1)[:, :, 1:]
        outer = torch.einsum("n,noi,noj->ij", sums[:, 0] / len(x), slopes, slopes)
        strength, axes = torch.linalg.eigh(outer)
        if float(strength[-1]) <= 0:
            return metric
        stretch = (strength.clamp(min=0) / strength[-1]).sqrt().clamp(min=_FLOOR)
        metric = axes @ torch.diag(stretch) @ axes.t()
    return metric
