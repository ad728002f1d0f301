"""Exponents of error over buckets: what theory says, and power laws through measurements."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

from lazyneuron.core.errors import AssumptionError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Exponent:
    """A power law fitted to measurements: ``error = factor * buckets^slope``.

    Attributes:
        slope: of the logarithms, by least squares.
        factor: the constant.
        residual: root mean square of the logarithms' residuals.
        predicted: what theory says the slope is.
    """

    slope: float
    factor: float
    residual: float
    predicted: float


def predicted_slope(*, dimension: int, degree: int) -> float:
    """Slope of root mean square error over buckets: ``-(degree + 1) / k`` for targets with so many derivatives.

    Raises:
        AssumptionError: a dimension below 1, or a negative degree.

    Source: degree 0 follows from Theorem 4.1 solved for the error; higher degrees are ours: on a bucket of diameter h a
    function with ``degree + 1`` continuous derivatives differs from its Taylor polynomial by the order of
    ``h^(degree + 1)``, and B buckets in k dimensions have a diameter of order B^(-1/k).
    """
    if dimension < 1 or degree < 0:
        raise AssumptionError(f"The dimension is at least 1 and the degree 0 or more, got {dimension} and {degree}.")
    return -(1 + degree) / dimension


def fit_exponent(buckets: Sequence[float], errors: Sequence[float], *, predicted: float) -> Exponent:
    """The power law through measured errors.

    Args:
        buckets: at least two different positive numbers.
        errors: as many positive numbers.
        predicted: the slope that theory gives.

    Raises:
        AssumptionError: fewer than two points, or numbers that are not positive.
    """
    if len(buckets) != len(errors) or len(set(buckets)) < 2 or min(*buckets, *errors) <= 0:
        raise AssumptionError("A power law needs at least two positive points at different numbers of buckets.")
    x, y = [math.log(b) for b in buckets], [math.log(e) for e in errors]
    n, mx, my = len(x), sum(x) / len(x), sum(y) / len(y)
    slope = sum((a - mx) * (b - my) for a, b in zip(x, y, strict=True)) / sum((a - mx) ** 2 for a in x)
    rest = [b - my - slope * (a - mx) for a, b in zip(x, y, strict=True)]
    residual = math.sqrt(sum(r * r for r in rest) / n)
    return Exponent(slope=slope, factor=math.exp(my - slope * mx), residual=residual, predicted=predicted)
