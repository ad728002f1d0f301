"""How many samples polynomial regression needs, and what risk it reaches."""

from __future__ import annotations

import dataclasses
import math

from lazyneuron.core.errors import ConfigError
from lazyneuron.learn.bounds.bound import OURS, UNIFORM, Bound
from lazyneuron.learn.checks import at_least, count, positive, probability, upper, whole_above


def samples_ols(features: int, delta: float) -> Bound:
    """D6 (c): ``ceil(max(6.52 N ln(2 N / delta), 8 N / delta))`` rows; the half-squared loss is at most the tail then.

    Args:
        features: N.
        delta: failure probability.

    Raises:
        ConfigError: a number is out of range.

    Source: ours, D6 (c); compare Cohen, Davenport, Leviatan (2013).
    """
    n, delta = count(features, "The number of features"), probability(delta, "delta")
    m = upper(lambda: max(6.52 * n * (math.log(2 * n) - math.log(delta)), 8 * n / delta))
    return Bound(
        value=whole_above(m),
        assumptions=(UNIFORM, "labels without noise", "the tail is at most the error"),
        failure_probability=delta,
        source="D6 (c)",
        provenance=OURS,
    )


def gram_failure(features: int, rows: int, *, floor: float = 0.5) -> float:
    """D6 (a): the probability that the least eigenvalue of the Gram matrix falls below a floor is at most this.

    ``N exp(-(1 - floor + floor ln floor) m / N)``, for half the identity ``N exp(-0.1534 m / N)``; 1 where that says
    nothing.

    Args:
        features: N.
        rows: m.
        floor: the eigenvalue; nothing is said from 1 on, the mean of the eigenvalues.

    Raises:
        ConfigError: a number is out of range.

    Assumes: rows uniform on the cube, drawn independently.

    Source: matrix Chernoff (Tropp 2012).
    """
    n, m = count(features, "The number of features"), count(rows, "The number of rows", least=0)
    least = positive(floor, "floor")
    if least >= 1:
        return 1.0
    rate = 1 - least + least * math.log(least)
    return min(1.0, n * math.exp(-rate * (m / n)))


def risk_ols(tail: float, features: int, *, rows: int, noise: float = 0.0, floor: float = 0.5) -> Bound:
    """D6 (b): ``E[1_event |g - h|^2] <= tail + N (tail + noise) / (floor^2 m)``; the event: a good Gram matrix.

    Args:
        tail: weight above the degree.
        features: N.
        rows: m.
        noise: variance of the labels' noise.
        floor: the least eigenvalue of the Gram matrix, fixed beforehand.

    Raises:
        ConfigError: a number is out of range.

    Source: ours, D6 (b).
    """
    tail, noise, least = at_least(tail, 0, "The tail"), at_least(noise, 0, "Noise"), positive(floor, "floor")
    n, m = count(features, "The number of features"), count(rows, "The number of rows")
    failure = gram_failure(n, m, floor=least)
    return Bound(
        value=upper(lambda: tail + n / m * (tail + noise) / least / least),
        assumptions=(UNIFORM, f"in expectation, on the event that the least Gram eigenvalue is at least {least:g}"),
        failure_probability=failure,
        source="D6 (b)",
        provenance=OURS,
        vacuous=failure >= 1,
    )


def typical_risk_ols(tail: float, features: int, *, rows: int, noise: float = 0.0) -> float:
    """``tail + (tail + noise) N / (m - N)``: what one sees for m above N, infinite below; a rule of thumb, no bound.

    Args:
        tail: weight above the degree.
        features: N.
        rows: m.
        noise: variance of the labels' noise.

    Raises:
        ConfigError: a number is out of range.
    """
    tail, noise = at_least(tail, 0, "The tail"), at_least(noise, 0, "Noise")
    n, m = count(features, "The number of features"), count(rows, "The number of rows")
    return math.inf if m <= n else upper(lambda: tail + (tail + noise) * (n / (m - n)))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Batches:
    """D6 (d): how many batches of how many rows, so that the most central of their fits is good with high probability.

    Attributes:
        count: L.
        rows: of each batch.
    """

    count: int
    rows: int


def batches_for(features: int, delta: float, *, residual: float, error: float) -> Batches:
    """``L = ceil(8 ln(1/delta))`` batches of ``ceil(N max(6.52 ln(8 N), 288 residual / error))`` rows.

    Args:
        features: N.
        delta: failure probability.
        residual: mean squared residual of the best polynomial, ``E r^2``; the tail when labels have no noise.
        error: squared distance allowed to the best polynomial.

    Raises:
        ConfigError: a number is out of range.

    Source: ours, D6 (d).
    """
    n, delta = count(features, "The number of features"), probability(delta, "delta")
    residual, error = at_least(residual, 0, "The residual"), positive(error, "error")
    rows = upper(lambda: n * max(6.52 * math.log(8 * n), 288 * residual / error))
    if not math.isfinite(rows):
        raise ConfigError(f"No finite number of rows reaches an error of {error:g} from a residual of {residual:g}.")
    return Batches(count=math.ceil(-8 * math.log(delta)), rows=math.ceil(rows))


def agnostic_excess(best: float, tail: float, *, features: int, rows: int) -> Bound:
    """D8: the whole squared error of least squares on any labels, not only what exceeds the best of the class.

    ``E (g - y)^2 <= (1 + 4 N / m) (sqrt(best) + sqrt(tail))^2`` on the event that the Gram matrix is good.

    Args:
        best: squared error of the best function of the class.
        tail: its weight above the degree.
        features: N.
        rows: m.

    Raises:
        ConfigError: a number is out of range.

    Source: ours, D8.
    """
    best, tail = at_least(best, 0, "The best error"), at_least(tail, 0, "The tail")
    n, m = count(features, "The number of features"), count(rows, "The number of rows")
    failure = gram_failure(n, m)
    return Bound(
        value=upper(lambda: (1 + 4 * n / m) * (math.sqrt(best) + math.sqrt(tail)) ** 2),
        assumptions=(UNIFORM, "in expectation, on the event that the least Gram eigenvalue is at least 1/2"),
        failure_probability=failure,
        source="D8",
        provenance=OURS,
        vacuous=failure >= 1,
    )
