"""Exponents of error over buckets: what theory says, and power laws through measurements."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence
from typing import Any

from lazyneuron.core.arguments import described
from lazyneuron.core.errors import AssumptionError, ConfigError
from lazyneuron.core.numbers import real
from lazyneuron.route.theory import count, from_logarithm


@dataclasses.dataclass(frozen=True, kw_only=True)
class Exponent:
    """A power law fitted to measurements: ``error = factor * buckets^slope``.

    Attributes:
        slope: of the logarithms, by least squares.
        factor: the constant; infinite where a float does not hold it.
        residual: root mean square of the logarithms' residuals.
        predicted: what theory says the slope is.
    """

    slope: float
    factor: float
    residual: float
    predicted: float


def predicted_slope(*, dimension: int, degree: int) -> float:
    """Slope of root mean square error over buckets: ``-(degree + 1) / k`` for targets with so many derivatives.

    Args:
        dimension: k.
        degree: Delta.

    Raises:
        AssumptionError: a dimension below 1, or a negative degree.
        ConfigError: what are no whole numbers, or above 2**53.

    Source: degree 0 follows from Theorem 4.1 solved for the error; higher degrees are ours: on a bucket of diameter h a
    function with ``degree + 1`` continuous derivatives differs from its Taylor polynomial by the order of
    ``h^(degree + 1)``, and B buckets in k dimensions have a diameter of order B^(-1/k).
    """
    k, delta = count(dimension, "The dimension"), count(degree, "The degree")
    if k < 1 or delta < 0:
        raise AssumptionError(f"The dimension is at least 1 and the degree 0 or more, got {k} and {delta}.")
    return -(1 + delta) / k


def fit_exponent(buckets: Sequence[float], errors: Sequence[float], *, predicted: float) -> Exponent:
    """The power law through measured errors.

    Args:
        buckets: at least two different positive numbers.
        errors: as many positive numbers.
        predicted: the slope that theory gives.

    Raises:
        AssumptionError: fewer than two points, or numbers that are not positive.
        ConfigError: what are no finite numbers.
    """
    b, e = _numbers(buckets, "The numbers of buckets"), _numbers(errors, "The errors")
    predicted = real(predicted, "The predicted slope")
    x, y = [math.log(v) for v in b if v > 0], [math.log(v) for v in e if v > 0]
    if len(b) != len(e) or len(x) < len(b) or len(y) < len(e) or len(set(x)) < 2:
        raise AssumptionError("A power law needs at least two positive points at different numbers of buckets.")
    n, mx, my = len(x), sum(x) / len(x), sum(y) / len(y)
    slope = sum((a - mx) * (c - my) for a, c in zip(x, y, strict=True)) / sum((a - mx) ** 2 for a in x)
    rest = [c - my - slope * (a - mx) for a, c in zip(x, y, strict=True)]
    residual = math.sqrt(sum(r * r for r in rest) / n)
    return Exponent(slope=slope, factor=from_logarithm(my - slope * mx), residual=residual, predicted=predicted)


def _numbers(values: Any, name: str) -> list[float]:
    if not isinstance(values, Iterable) or isinstance(values, str | bytes):
        raise ConfigError(f"{name} are several numbers, got {described(values)}.")
    return [real(value, f"Each of {name[0].lower()}{name[1:]}") for value in values]
