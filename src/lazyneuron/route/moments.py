"""From a bucket's sums to its polynomial: closed form, shrunk towards the polynomial of the bucket around it."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

_AT_ONCE = 1 << 15


@dataclasses.dataclass(frozen=True, kw_only=True)
class Frame:
    """How rows are standardised, and what is kept of them.

    Attributes:
        mean, scale: (features,) float64; the scale is 1 where a column is constant.
        outputs: columns of the target.
        degree: 0 for a constant a bucket, 1 for an affine function.
    """

    mean: Tensor
    scale: Tensor
    outputs: int
    degree: int

    @staticmethod
    def of(x: Tensor, *, outputs: int, degree: int) -> Frame:
        """The standardisation of a sample (rows, features) in float64."""
        mean = x.mean(0)
        deviation = (x - mean).square().mean(0).sqrt()
        constant = deviation <= 1e-12 * x.abs().amax(0).clamp(min=1e-300)
        return Frame(mean=mean, scale=torch.where(constant, 1.0, deviation), outputs=outputs, degree=degree)

    @property
    def features(self) -> int:
        """Length of a row."""
        return len(self.mean)

    @property
    def columns(self) -> int:
        """Coefficients of a bucket."""
        return self.outputs * (1 + self.degree * self.features)

    def standardise(self, x: Tensor) -> Tensor:
        """(rows, features) float64 with mean 0 and deviation 1 over the rows that the frame was made from."""
        return (x.to(torch.float64) - self.mean) / self.scale

    def to_raw(self, values: Tensor) -> Tensor:
        """Coefficients of standardised rows as those of raw ones: what a prediction reads."""
        if not self.degree:
            return values
        parts = values.reshape(len(values), self.outputs, 1 + self.features)
        slopes = parts[:, :, 1:] / self.scale
        start = parts[:, :, :1] - (slopes @ self.mean)[:, :, None]
        return torch.cat([start, slopes], 2).reshape(len(values), -1)


def solve(sums: Tensor, frame: Frame, *, parent: Tensor, shrinkage: float) -> tuple[Tensor, Tensor]:
    """Each bucket's coefficients and the spread around them.

    With n rows, centroid c and scatter S, and with p the parent's polynomial: the value at the centroid is
    ``p(c) + (sum of y - p) / (n + shrinkage)``, and the slopes solve
    ``(S + shrinkage v I) (w - w_p) = sum (x - c) (y - p)``, where v is the mean variance of x within the buckets given.
    Without shrinkage and for degree 0 this is the bucket's mean.

    Args:
        sums: (buckets, width) of :func:`lazyneuron.ops.buckets.operators.accumulate_`, of standardised rows; counts
            above 0.
        frame: what the columns mean.
        parent: (buckets, columns) coefficients of the bucket around each.
        shrinkage: weight of the parent, in rows.

    Returns:
        Coefficients (buckets, columns), and the root mean square residual (buckets, outputs) of the rows themselves.

    Source: ours; ridge regression towards a prior mean.
    """
    v = _variance_within(sums, frame) if frame.degree else 0.0
    parts = [
        _solve_some(s, frame, p, shrinkage, v)
        for s, p in zip(sums.split(_AT_ONCE), parent.split(_AT_ONCE), strict=True)  # type: ignore[no-untyped-call]
    ]
    if not parts:
        return parent.clone(), torch.empty(0, frame.outputs, dtype=torch.float64)
    return torch.cat([c for c, _ in parts]), torch.cat([r for _, r in parts])


def _scatter(sums: Tensor, frame: Frame) -> tuple[Tensor, Tensor]:
    """Centroids (buckets, d) and centred scatter matrices (buckets, d, d)."""
    d, o = frame.features, frame.outputs
    n, start = sums[:, :1], 1 + 2 * o
    c = sums[:, start : start + d] / n
    above = torch.triu_indices(d, d)
    s = torch.empty(len(sums), d, d, dtype=torch.float64)
    s[:, above[0], above[1]] = sums[:, start + d : start + d + d * (d + 1) // 2]
    s[:, above[1], above[0]] = s[:, above[0], above[1]]
    return c, s - n[:, :, None] * c[:, :, None] * c[:, None, :]


def _variance_within(sums: Tensor, frame: Frame) -> float:
    """Mean over rows and features of the variance of x within its bucket."""
    d, start = frame.features, 1 + 2 * frame.outputs
    diagonal = torch.cat([torch.zeros(1, dtype=torch.int64), torch.arange(d, 1, -1).cumsum(0)]) + start + d
    square = sums[:, diagonal].sum(0) - (sums[:, start : start + d].square() / sums[:, :1]).sum(0)
    return max(float(square.sum() / (d * sums[:, 0].sum())), 1e-12)


def _solve_some(sums: Tensor, frame: Frame, parent: Tensor, shrinkage: float, v: float) -> tuple[Tensor, Tensor]:
    d, o = frame.features, frame.outputs
    n, mean_y = sums[:, :1], sums[:, 1 : 1 + o] / sums[:, :1]
    square_y = (sums[:, 1 + o : 1 + 2 * o] / n - mean_y.square()).clamp(min=0.0)
    if not frame.degree:
        value = parent + (mean_y - parent) * (n / (n + shrinkage))
        return value, (square_y + (value - mean_y).square()).sqrt()
    c, s = _scatter(sums, frame)
    old = parent.reshape(-1, o, 1 + d)
    xy = sums[:, -o * d :].reshape(-1, o, d) - n[:, :, None] * mean_y[:, :, None] * c[:, None, :]
    right = xy - old[:, :, 1:] @ s
    trace = s.diagonal(dim1=1, dim2=2).sum(1) + n[:, 0] * c.square().sum(1)
    floor = shrinkage * v + 1e-13 * trace  # above the rounding of the scatter's difference
    factor, info = torch.linalg.cholesky_ex(s + floor[:, None, None] * torch.eye(d, dtype=torch.float64))
    step = torch.cholesky_solve(right.transpose(1, 2), factor).transpose(1, 2)
    step = torch.where((info == 0)[:, None, None], step, 0.0)  # a degenerate bucket keeps its parent's slopes
    slopes = old[:, :, 1:] + step
    at_c = old[:, :, 0] + (old[:, :, 1:] @ c[:, :, None])[:, :, 0]
    level = at_c + (mean_y - at_c) * (n / (n + shrinkage))
    start = level - (slopes @ c[:, :, None])[:, :, 0]
    rest = square_y - (2 * (slopes * xy).sum(2) - (slopes @ s * slopes).sum(2)) / n
    spread = (rest.clamp(min=0.0) + (level - mean_y).square()).sqrt()
    return torch.cat([start[:, :, None], slopes], 2).reshape(len(sums), -1), spread
