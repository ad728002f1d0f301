"""How concentrated the spectrum of a weight matrix is."""

from __future__ import annotations

import dataclasses
import math

import torch
from torch import Tensor

from lazyneuron.core.arguments import check_finite
from lazyneuron.core.errors import ConfigError, ShapeError


@dataclasses.dataclass(frozen=True, kw_only=True)
class SpectralReport:
    """The eigenvalues of ``K K^T`` in a few numbers, with the thresholds they were made with.

    Attributes:
        floor_ratio: largest over smallest of the eigenvalues above ``floor`` times the mean of all (zeros included).
        mass_ratio: ratio of the ends of the narrowest interval, in equal steps of the logarithm, that holds ``mass``
            of the
            eigenvalues above ``cutoff``; NaN when none is.
        singular_ratio: largest over smallest singular value of the numerical rank.
        zero_share: share of the ``neurons`` eigenvalues that are numerically 0.
        mean: mean of all eigenvalues, the squared Frobenius norm over the number of neurons.
        mean_nonzero: mean over the numerical rank.
        rank: numerical rank.
        participation: ``(sum)^2 / sum of squares`` of the eigenvalues.
        floor, mass, bins, cutoff: the thresholds.
    """

    floor_ratio: float
    mass_ratio: float
    singular_ratio: float
    zero_share: float
    mean: float
    mean_nonzero: float
    rank: int
    participation: float
    floor: float
    mass: float
    bins: int
    cutoff: float


def participation_ratio(eigenvalues: Tensor) -> float:
    """``(sum v)^2 / sum v^2``: how many eigenvalues share the trace; NaN when all are 0."""
    values = eigenvalues.double()
    squares = float(values.square().sum())
    return float(values.sum()) ** 2 / squares if squares > 0 else math.nan


def gram_eigenvalues(weight: Tensor) -> Tensor:
    """All eigenvalues of ``K K^T``, ascending, float64, through the smaller of the two Gram matrices.

    Args:
        weight: K, (neurons, d_in).

    Returns:
        (neurons,), the certain zeros of ``neurons > d_in`` included.

    Raises:
        ShapeError: ``weight`` is no matrix.
        DataError: it is no tensor, or not finite.
    """
    check_finite("A weight matrix", weight)
    if weight.dim() != 2:
        raise ShapeError(f"A spectrum is that of a matrix, got shape {tuple(weight.shape)}.")
    k = weight.detach().double()
    small = k @ k.t() if k.shape[0] <= k.shape[1] else k.t() @ k
    values = torch.linalg.eigvalsh(small).clamp(min=0)
    return torch.cat([values.new_zeros(k.shape[0] - len(values)), values])


def spectral_concentration(
    weight: Tensor, *, floor: float = 10.0, mass: float = 0.8, bins: int = 100, cutoff: float = 0.1
) -> SpectralReport:
    """How far apart the eigenvalues of ``K K^T`` lie.

    Args:
        weight: K, (neurons, d_in).
        floor, mass, bins, cutoff: thresholds; see :class:`SpectralReport`.

    Returns:
        The report. The ratios are of eigenvalues but for ``singular_ratio``.

    Raises:
        ShapeError: ``weight`` is no matrix.
        DataError: it is no tensor, or not finite.
        ConfigError: a threshold has no meaning.

    Cost: one symmetric eigenvalue problem of the smaller side.

    Source: the two statistics of the authors' code to Peng, Qi, Shi, Gao (2023), arXiv 2309.03004.
    """
    if not (floor >= 0 and 0 < mass <= 1 and bins >= 1 and cutoff > 0):
        raise ConfigError(
            f"floor >= 0, mass in (0, 1], bins >= 1 and cutoff > 0 are needed, got {floor}, {mass}, {bins}, {cutoff}."
        )
    values = gram_eigenvalues(weight)
    top = float(values[-1]) if len(values) else 0.0
    tiny = top * max(weight.shape) * torch.finfo(torch.float64).eps
    nonzero = values[values > tiny]
    mean = float(values.mean()) if len(values) else math.nan
    return SpectralReport(
        floor_ratio=_ratio(values[values > floor * mean]),
        mass_ratio=_narrowest(values[values > cutoff], mass, bins),
        singular_ratio=math.sqrt(_ratio(nonzero)),
        zero_share=1 - len(nonzero) / max(len(values), 1),
        mean=mean,
        mean_nonzero=float(nonzero.mean()) if len(nonzero) else math.nan,
        rank=len(nonzero),
        participation=participation_ratio(values),
        floor=floor,
        mass=mass,
        bins=bins,
        cutoff=cutoff,
    )


def _ratio(values: Tensor) -> float:
    return float(values.max() / values.min()) if len(values) else math.nan


def _narrowest(values: Tensor, mass: float, bins: int) -> float:
    """Ratio of the ends of the narrowest run of bins, equal in the logarithm, that holds the wanted share."""
    if not len(values):
        return math.nan
    logs = values.log10()
    low, high = float(logs.min()), float(logs.max())
    if high == low:
        return 1.0
    counts = torch.histc(logs, bins, min=low, max=high)
    wanted = mass * len(values)
    below = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    for width in range(1, bins + 1):
        if float((below[width:] - below[: bins + 1 - width]).max()) >= wanted - 1e-9:
            return float(10 ** (width * (high - low) / bins))
    return float(10 ** (high - low))
