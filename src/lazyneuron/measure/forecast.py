"""Forecasts of density from the law of a block's inputs, beside what fires."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Literal

import torch
from torch import Tensor

from lazyneuron.blocks.block import MLPBlock
from lazyneuron.core.arguments import check_tensor, described
from lazyneuron.core.errors import ConfigError, DataError, ShapeError

Law = Literal["gaussian", "empirical"]
LAWS: tuple[Law, ...] = ("gaussian", "empirical")
NOT_FINITE = "No forecast: a moment of its pre-activations is not a finite number."


@dataclasses.dataclass(frozen=True, kw_only=True)
class Forecast:
    """How densely a block would fire if its inputs had a law with the moments that were seen.

    Attributes:
        law: ``"gaussian"``: normal inputs with the mean and covariance seen; ``"empirical"``: corrected for the
            skewness and excess kurtosis of each pre-activation.
        density: mean of the rates, in [0, 1].
        rates: share of tokens on which each neuron would fire; float64 of shape (d_hidden,).
        mean_error: mean over neurons of the distance to the measured rate.
        largest_error: the largest such distance.
    """

    law: Law
    density: float
    rates: Tensor = dataclasses.field(repr=False, compare=False)
    mean_error: float
    largest_error: float

    def against(self, name: str, measured: float | None) -> str:
        """One line beside what was measured."""
        seen = "nothing" if measured is None else f"{measured:.4f}"
        return (
            f"{name}: density {self.density:.4f} forecast ({self.law}), {seen} measured; rates differ by "
            f"{self.mean_error:.4f} in the mean, {self.largest_error:.4f} at most"
        )

    def to_data(self) -> dict[str, Any]:
        """JSON-able facts, without the rates."""
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "rates"}


def check_law(law: str | None) -> Law | None:
    """The name of a law, or None.

    Raises:
        ConfigError: the name is unknown.
    """
    if law is None:
        return None
    for known in LAWS:
        if law == known:
            return known
    raise ConfigError(f"A forecast is 'gaussian' or 'empirical', got {law!r}; leave it out to make none.")


def why_not(block: MLPBlock) -> str | None:
    """Why a block's density does not follow from the law of each pre-activation, or None when it does."""
    if block.rectifies_up:
        return "No forecast: what fires depends on gate and up together."
    if block.activation.kind == "other":
        return "No forecast: where the activation function is zero is not known."
    if not block.activation.elementwise:
        return "No forecast: what fires depends on all pre-activations of a token together."
    return None


def gaussian_rates(block: MLPBlock, mean: Tensor, covariance: Tensor) -> Tensor:
    """Firing rates of a block whose inputs are normal: ``Pr[w x + b lies outside of the zero interval]``, exactly.

    In a gated block it is ``s(gate)`` that fires.

    Args:
        block: the block.
        mean: of the inputs, (d_in,).
        covariance: of the inputs, (d_in, d_in).

    Returns:
        float64 of shape (d_hidden,), in [0, 1].

    Raises:
        ConfigError: it is no block, or what fires does not follow from single pre-activations.
        ShapeError: mean and covariance do not fit the block.
        DataError: mean or covariance is no tensor, a number of theirs or of the pre-activations' is not finite, or the
            covariance makes a variance clearly negative.
    """
    if not isinstance(block, MLPBlock):
        raise ConfigError(f"A block is an MLPBlock, got {described(block)}; pass one that find_blocks gives.")
    check_tensor("The mean of the inputs", mean)
    check_tensor("The covariance of the inputs", covariance)
    if (reason := why_not(block)) is not None:
        raise ConfigError(f"Block {block.name!r} has no forecast of single neurons; measure it. {reason}")
    d = block.d_in
    if tuple(mean.shape) != (d,) or tuple(covariance.shape) != (d, d):
        raise ShapeError(
            f"Block {block.name!r} takes inputs of {d} numbers: their mean is ({d},), their covariance ({d}, {d}), "
            f"got {tuple(mean.shape)} and {tuple(covariance.shape)}."
        )
    weight, bias = block.first.effective_weight.detach().double(), block.first.bias
    law, spread = mean.to(weight), covariance.to(weight)
    if not (law.isfinite().all() and spread.isfinite().all()):
        raise DataError("Mean and covariance of the inputs hold NaN or infinity; remove these rows.")
    centre = weight @ law if bias is None else weight @ law + bias.detach().double()
    variance = ((weight @ spread) * weight).sum(dim=1)
    if not (centre.isfinite().all() and variance.isfinite().all()):
        raise DataError(
            f"Mean or variance of a pre-activation of block {block.name!r} is not finite; scale the inputs."
        )
    if bool((variance < -1e-9 * weight.square().sum(dim=1) * spread.abs().max()).any()):
        raise DataError("The covariance of the inputs is not positive semidefinite; compute it from the inputs.")
    return _rates(block, centre, variance.clamp(min=0))


class Moments:
    """Sums of powers of each pre-activation over the tokens seen, up to the fourth, about a point near their mean."""

    def __init__(self) -> None:
        self._about: Tensor | None = None
        self._sums: Tensor | None = None
        self._count: Tensor | None = None

    def add(self, z: Tensor, real: Tensor) -> None:
        """Count the real rows of pre-activations (..., d_hidden)."""
        rows = z.reshape(-1, z.shape[-1])[real].double()
        if not len(rows):
            return
        if self._about is None or self._sums is None or self._count is None:
            self._about = rows.mean(dim=0)
            self._sums = rows.new_zeros(4, rows.shape[1])
            self._count = rows.new_zeros(())
        away = rows - self._about
        square = away * away
        self._sums += torch.stack([away.sum(0), square.sum(0), (square * away).sum(0), (square * square).sum(0)])
        self._count += len(rows)

    def forecast(self, block: MLPBlock, law: Law, measured: Tensor) -> Forecast | None:
        """The forecast, or None where no token was seen or a moment that the law asks for is not finite."""
        if self._about is None or self._sums is None or self._count is None:
            return None
        m1, m2, m3, m4 = self._sums / self._count
        variance = (m2 - m1**2).clamp(min=0)
        shape = None
        if law == "empirical":
            third = m3 - 3 * m1 * m2 + 2 * m1**3
            fourth = m4 - 4 * m1 * m3 + 6 * m1**2 * m2 - 3 * m1**4
            safe = torch.where(variance > 0, variance, 1.0)
            shape = (third / safe**1.5, torch.where(variance > 0, fourth / safe**2 - 3, 0.0))
        centre = self._about + m1
        if not all(bool(moment.isfinite().all()) for moment in (centre, variance, *(shape or ()))):
            return None
        rates = _rates(block, centre, variance, shape=shape).cpu()
        error = (rates - measured).abs()
        return Forecast(
            law=law,
            density=float(rates.mean()),
            rates=rates,
            mean_error=float(error.mean()),
            largest_error=float(error.max()),
        )


def _rates(block: MLPBlock, mean: Tensor, variance: Tensor, *, shape: tuple[Tensor, Tensor] | None = None) -> Tensor:
    """One minus the probability of the zero interval's pieces; (d_hidden,)."""
    zero = block.activation.zero
    below = _below(zero.left, mean, variance, shape)
    if zero.low <= zero.high:
        inner = _below(zero.high, mean, variance, shape) - _below(zero.low, mean, variance, shape, closed=False)
        below = below + inner.clamp(min=0)
    return (1 - below).clamp(0, 1)


def _below(
    end: float, mean: Tensor, variance: Tensor, shape: tuple[Tensor, Tensor] | None, *, closed: bool = True
) -> Tensor:
    """``Pr[z <= end]`` (``<`` when not closed); with skewness and excess kurtosis by Edgeworth's expansion."""
    if math.isinf(end):
        return torch.full_like(mean, float(end > 0))
    constant = (mean <= end if closed else mean < end).double()
    u = (end - mean) / torch.where(variance > 0, variance, 1.0).sqrt()
    found = 0.5 * torch.erfc(-u / math.sqrt(2))
    if shape is not None:
        skew, excess = shape
        u = u.clamp(-40, 40)  # where the normal density is 0 already, so that no power is infinite times 0
        hermite2, hermite3, hermite5 = u**2 - 1, u**3 - 3 * u, u**5 - 10 * u**3 + 15 * u
        change = skew / 6 * hermite2 + excess / 24 * hermite3 + skew**2 / 72 * hermite5
        found = (found - torch.exp(-(u**2) / 2) / math.sqrt(2 * math.pi) * change).clamp(0, 1)
    return torch.where(variance > 0, found, constant)
