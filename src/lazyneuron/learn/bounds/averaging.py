"""How many samples averaging needs, and what risk it reaches, centred or not."""

from __future__ import annotations

import math

from lazyneuron.core.errors import ConfigError
from lazyneuron.learn.bounds.bound import OURS, UNIFORM, Bound
from lazyneuron.learn.checks import at_least, positive, probability

_LABELS = ("labels are not centred", "E y^2 is that of the labels' law")
_AVERAGED = (UNIFORM, *_LABELS, "in expectation")
_CENTRED = (
    UNIFORM,
    "labels are centred by their own mean",
    "the variance is that of the labels' law",
    "in expectation",
)
_CENTRED_ROWS = 4  # from here on the biases of centring take away less than they save


def samples_lmn(
    features: int, error: float, *, second_moment: float | None = None, variance: float | None = None
) -> Bound:
    """D7: rows so that averaging adds at most ``error`` to the tail in expectation: ``N E[y^2] / error``.

    Args:
        features: N.
        error: squared.
        second_moment: ``E y^2``, for averaging that is not centred; or
        variance: of the labels, for centred averaging, the learner's default; then at least 4 rows.

    Raises:
        ConfigError: a number is out of range, or not exactly one of both moments was given.

    Source: ours, D7; averaging is due to Linial, Mansour, Nisan (1993).
    """
    moment, law = _moment(second_moment, variance)
    value = math.ceil(features * moment / positive(error, "error"))
    if variance is not None:
        value = max(value, _CENTRED_ROWS)
    return Bound(value=value, assumptions=law, source="D7", provenance=OURS)


def risk_lmn(
    tail: float,
    features: int,
    *,
    rows: int,
    second_moment: float | None = None,
    variance: float | None = None,
    learnable: float = 0.0,
) -> Bound:
    """D7: ``E |g - h|^2 <= tail + N E[y^2] / m`` for averaging; with the variance in its place when it is centred.

    Centred averaging takes the mean of the same rows out first, as ``LowDegreeRegressor(solver="lmn")`` does, and its
    risk is known exactly: ``tail + V/m + (N - 1) (m - 1) V / m^2 - (m^2 - 4 m + 2) L / m^3``, with L the weight of the
    levels from 1 to d. That is at most ``tail + N V / m`` from 4 rows on.

    Args:
        tail: weight above the degree.
        features: N.
        rows: m.
        second_moment: ``E y^2``, for averaging that is not centred; or
        variance: V, of the labels with their noise, for centred averaging.
        learnable: with the variance, L or a lower bound on it; at L itself the value is the risk, not a bound.

    Raises:
        ConfigError: a number is out of range, not exactly one of both moments was given, or m is below 4 for centred
            averaging.

    Source: ours, D7.
    """
    moment, law = _moment(second_moment, variance)
    at_least(tail, 0, "The tail"), at_least(features, 1, "The number of features")
    if variance is None:
        value = tail + features * moment / positive(rows, "rows")
        return Bound(value=value, assumptions=law, source="D7", provenance=OURS)
    m = at_least(rows, _CENTRED_ROWS, "The number of rows of centred averaging")
    if not 0 <= learnable <= moment:
        raise ConfigError(f"The weight of the levels from 1 on lies between 0 and the variance, got {learnable}.")
    spread = moment / m + (features - 1) * (m - 1) * moment / m**2
    value = tail + spread - (m * m - 4 * m + 2) / m**3 * learnable
    return Bound(value=value, assumptions=law, source="D7, centred", provenance=OURS)


def _moment(second_moment: float | None, variance: float | None) -> tuple[float, tuple[str, ...]]:
    if (second_moment is None) == (variance is None):
        raise ConfigError("Give either second_moment (not centred) or variance (centred, the learner's default).")
    if second_moment is not None:
        return at_least(second_moment, 0, "E y^2"), _AVERAGED
    return at_least(float(variance or 0.0), 0, "The variance"), _CENTRED


def deviation_lmn(features: int, delta: float, *, rows: int, second_moment: float, largest: float) -> Bound:
    """D7: ``|g - h_{<=d}| <= sqrt(N / m) (sqrt(E y^2) + Y sqrt(2 ln(1 / delta)))`` for labels within [-Y, Y].

    Raises:
        ConfigError: a number is out of range.

    Source: ours, D7.
    """
    spread = math.sqrt(at_least(second_moment, 0, "E y^2"))
    tail = at_least(largest, 0, "Y") * math.sqrt(2 * math.log(1 / probability(delta, "delta")))
    value = math.sqrt(features / positive(rows, "rows")) * (spread + tail)
    return Bound(
        value=value,
        assumptions=(UNIFORM, "labels within [-Y, Y]", *_LABELS),
        failure_probability=delta,
        source="D7",
        provenance=OURS,
    )
