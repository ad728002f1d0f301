"""The Marchenko-Pastur law, fitted to a spectrum, and accumulated Gram matrices beside it."""

from __future__ import annotations

import dataclasses
import math

import torch
from torch import Tensor

from lazyneuron.core.arguments import check_finite
from lazyneuron.core.errors import ConfigError, ShapeError
from lazyneuron.core.numbers import real, whole
from lazyneuron.explain.spectrum import participation_ratio


@dataclasses.dataclass(frozen=True, kw_only=True)
class SpectrumFit:
    """The law of ``H H^T / m`` with independent entries beside some eigenvalues.

    Attributes:
        ratio: ``c = width / samples``.
        variance: of the entries.
        low, high: ends of the support, ``variance (1 -+ sqrt c)^2``.
        mass_at_zero: ``1 - 1/c`` for ``c > 1``, else 0.
        distance: largest difference of the two distribution functions (Kolmogorov-Smirnov).
        outside: share of the eigenvalues beyond the support (zeros aside when the law has them).
    """

    ratio: float
    variance: float
    low: float
    high: float
    mass_at_zero: float
    distance: float
    outside: float


def density(values: Tensor, ratio: float, *, variance: float = 1.0) -> Tensor:
    """Density of the law's continuous part, 0 outside of its support.

    Args:
        values: where, any shape.
        ratio: ``c > 0``.
        variance: of the entries, > 0.

    Source: Marchenko and Pastur (1967).
    """
    low, high = _support(ratio, variance)
    v = values.double()
    inside = (v > low) & (v < high)
    root = ((high - v) * (v - low)).clamp(min=0).sqrt()
    return torch.where(inside, root / (2 * math.pi * ratio * variance * v.clamp(min=1e-300)), 0.0)


def marchenko_pastur(eigenvalues: Tensor, ratio: float, *, variance: float | None = None) -> SpectrumFit:
    """Compare eigenvalues with the law.

    Args:
        eigenvalues: of a Gram matrix over its number of samples, (width,).
        ratio: ``c = width / samples > 0``.
        variance: of the entries; None takes the mean eigenvalue, which is an unbiased estimate.

    Returns:
        The law's numbers and its distance from the eigenvalues.

    Raises:
        ShapeError: there are no eigenvalues.
        DataError: they are no tensor, or not finite.
        ConfigError: ratio or variance is no finite number above 0.
    """
    check_finite("Eigenvalues", eigenvalues)
    if eigenvalues.dim() != 1 or not len(eigenvalues):
        raise ShapeError(f"Eigenvalues are a vector with at least one entry, got shape {tuple(eigenvalues.shape)}.")
    values = eigenvalues.detach().double().sort().values
    ratio = real(ratio, "The law's ratio", above=0)
    v = real(float(values.mean()) if variance is None else variance, "The law's variance", above=0)
    low, high = _support(ratio, v)
    zero = max(0.0, 1 - 1 / ratio)
    slack = 1e-9 * high
    beyond = (values > high + slack) | ((values < low - slack) & ((values > slack) if zero else True))
    values = torch.where(values <= slack, 0.0, values)  # equal to rounding, and the law may have mass there
    expected = _distribution(values, ratio, v)
    above = (torch.searchsorted(values, values, right=True) / len(values) - expected).abs().max()
    below = (torch.searchsorted(values, values) / len(values) - expected)[values > 0].abs()
    return SpectrumFit(
        ratio=ratio,
        variance=v,
        low=low,
        high=high,
        mass_at_zero=zero,
        distance=max(float(above), float(below.max()) if len(below) else 0.0),
        outside=float(beyond.double().mean()),
    )


def _support(ratio: float, variance: float) -> tuple[float, float]:
    return variance * (1 - math.sqrt(ratio)) ** 2, variance * (1 + math.sqrt(ratio)) ** 2


def _distribution(values: Tensor, ratio: float, variance: float, *, points: int = 4001) -> Tensor:
    """The law's distribution function, by substituting an angle that makes the integrand smooth."""
    low, high = _support(ratio, variance)
    zero = max(0.0, 1 - 1 / ratio)
    angle = torch.linspace(0, math.pi, points, dtype=torch.float64)
    middle, half = (low + high) / 2, (high - low) / 2
    at = middle - half * angle.cos()
    # density times d at / d angle; at the lower end of c = 1 the quotient tends to a finite limit
    slope = (half * angle.sin()).square() / (2 * math.pi * ratio * variance * at.clamp(min=1e-300))
    slope = torch.where(at > 1e-14 * high, slope, slope[1])
    steps = (slope[1:] + slope[:-1]) / 2 * (math.pi / (points - 1))
    grown = torch.cat([steps.new_zeros(1), steps.cumsum(0)])
    grown = grown / grown[-1] * (1 - zero)
    cosine = ((middle - values) / half).clamp(-1, 1)
    place = cosine.arccos() / math.pi * (points - 1)
    left = place.floor().long().clamp(max=points - 2)
    inside = grown[left] + (place - left) * (grown[left + 1] - grown[left])
    return torch.where(values < 0, 0.0, zero + inside)


class GramTracker:
    """The decayed sum of ``h h^T`` over a training run, and how isotropic it is.

    Attributes:
        gram: float64 (width, width); updates change it in place.
        steps: updates so far.

    Raises:
        ConfigError: numbers out of range.

    Source: the experiment on the law's applicability in Peng, Qi, Shi, Gao (2023), arXiv 2309.03004, by the authors'
        code.
    """

    def __init__(
        self, width: int, *, lr: float, weight_decay: float = 0.0, threshold: float = 1e-3, decay_power: int = 1
    ) -> None:
        width, power = whole(width, "The width", least=1), whole(decay_power, "decay_power", least=1, most=2)
        rate = 1 - real(lr, "The learning rate", above=0) * real(weight_decay, "weight_decay", least=0)
        if not (rate > 0 and 0 < real(threshold, "The threshold") < 1):
            raise ConfigError(
                f"lr * weight_decay is below 1 and the threshold in (0, 1), got {lr} * {weight_decay} and {threshold}."
            )
        self.gram = torch.zeros(width, width, dtype=torch.float64)
        self.steps = 0
        self._rate, self._power, self._threshold = rate, power, threshold

    def update(self, h: Tensor) -> None:
        """Add the batch mean of ``h h^T``; h is (samples, width).

        Raises:
            ShapeError: another width, or no samples.
            DataError: it is no tensor, or not finite; what was added before stays.
        """
        check_finite("A batch", h)
        if h.dim() != 2 or h.shape[1] != len(self.gram) or not len(h):
            raise ShapeError(f"A batch is (samples, {len(self.gram)}) with samples >= 1, got {tuple(h.shape)}.")
        rows = h.detach().to("cpu", torch.float64)
        self.gram.addmm_(rows.t(), rows, beta=self._rate**self._power, alpha=1 / len(rows))
        self.steps += 1

    @property
    def participation(self) -> float:
        """``(tr S)^2 / |S|_F^2``: 1 for one direction, the width for all alike; NaN while S is 0."""
        return participation_ratio(torch.linalg.eigvalsh(self.gram))

    @property
    def anisotropy(self) -> float:
        """``sqrt(N) |aS - I|_F`` with the best ``a``; equals ``N sqrt(1 - participation / N)``, NaN with that."""
        n = len(self.gram)
        return n * math.sqrt(max(1 - self.participation / n, 0.0))  # in this order NaN stays

    @property
    def effective_steps(self) -> float:
        """After how many steps the tail of the decayed sum falls to the threshold; infinite without decay.

        The least T with ``sum over k > T of r^k <= threshold``, where ``r = (1 - lr weight_decay)^decay_power``.
        """
        rate = self._rate**self._power
        if rate == 1:
            return math.inf
        tail = math.log(self._threshold * (1 - rate)) / math.log(rate)
        return float(max(math.ceil(tail - 1), 0))


def stieltjes_bound(
    width: int, steps: float, batch: int, alpha: float, anisotropy: float, *, v: float = 1e-2
) -> tuple[float, float]:
    """The authors' bound on how far the update's Gram matrix is from the law, imaginary and real part.

    Args:
        width: N.
        steps, batch: ``c = N / (steps batch)``; ``steps`` may be infinite, as :attr:`GramTracker.effective_steps` is.
        alpha: participation over N.
        anisotropy: over N.
        v: imaginary part of the argument.

    Returns:
        (imaginary part, real part); infinite with infinitely many steps, unless ``alpha`` is 0.

    Raises:
        ConfigError: a size or ``v`` is not positive, a share is below 0, or one is no number.

    Source: the code to "Theorem 8" of Peng, Qi, Shi, Gao (2023); only its code form is known to us, and it is
        unverified.
    """
    for name, size in (("The width", width), ("The batch", batch)):
        real(size, name, least=1)
    for name, share in (("alpha", alpha), ("The anisotropy", anisotropy)):
        real(share, name, least=0)
    real(v, "v", above=0)
    inverse = (math.inf if steps == math.inf else real(steps, "The number of steps", above=0)) * batch / width
    if not alpha:
        return 0.0, 0.0  # for any number of steps
    # q / c of the authors' code, where c is 1 / inverse and may be 0
    grown = math.sqrt(inverse * (1 + (2 * math.sqrt(2) + 3) * alpha / v + anisotropy / v + 1 / (v * width)))
    return math.sqrt(2) * alpha**2 * grown / v**1.5, math.sqrt(2) * alpha * grown / math.sqrt(v)
