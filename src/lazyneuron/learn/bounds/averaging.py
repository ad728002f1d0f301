"""How many samples averaging needs, and what risk it reaches, centred or not."""

from __future__ import annotations

import math

from lazyneuron.core.errors import ConfigError
from lazyneuron.learn.bounds.bound import OURS, UNIFORM, Bound
from lazyneuron.learn.checks import at_least, count, positive, probability, upper, whole_above

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
    size, error = count(features, "The number of features"), positive(error, "error")
    value = whole_above(upper(lambda: size * moment / error))
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
        ConfigError: a number is out of range, not exactly one of both moments was given, m is below 4 for centred
            averaging, or ``learnable`` is above 0 without the variance, or where the constant is the only feature.

    Source: ours, D7.
    """
    moment, law = _moment(second_moment, variance)
    tail, size = at_least(tail, 0, "The tail"), count(features, "The number of features")
    m = count(rows, "The number of rows", least=1 if variance is None else _CENTRED_ROWS)
    known = at_least(learnable, 0, "The weight of the levels from 1 on")
    if variance is None:
        if known:
            raise ConfigError(f"The weight of the levels counts when averaging is centred, got {known}; give variance.")
        value = upper(lambda: tail + size * moment / m)
        return Bound(value=value, assumptions=law, source="D7", provenance=OURS)
    if known > (moment if size > 1 else 0.0):
        raise ConfigError(
            f"The weight of the levels from 1 on lies between 0 and the variance, and is 0 where the constant is the "
            f"only feature, got {known} for {size} features."
        )
    spread = upper(lambda: moment / m + (size - 1) * (m - 1) * (moment / m) / m)
    saved = ((m - 4) * m + 2) / m**2 * (known / m)
    value = upper(lambda: tail + spread - saved)
    return Bound(value=value, assumptions=law, source="D7, centred", provenance=OURS)


def _moment(second_moment: float | None, variance: float | None) -> tuple[float, tuple[str, ...]]:
    if (second_moment is None) == (variance is None):
        raise ConfigError("Give either second_moment (not centred) or variance (centred, the learner's default).")
    if second_moment is not None:
        return at_least(second_moment, 0, "E y^2"), _AVERAGED
    return at_least(variance, 0, "The variance"), _CENTRED


def deviation_lmn(features: int, delta: float, *, rows: int, second_moment: float, largest: float) -> Bound:
    """D7: ``|g - h_{<=d}| <= sqrt(N / m) (sqrt(E y^2) + Y sqrt(2 ln(1 / delta)))`` for labels within [-Y, Y].

    Args:
        features: N.
        delta: failure probability.
        rows: m.
        second_moment: ``E y^2``.
        largest: Y.

    Raises:
        ConfigError: a number is out of range.

    Source: ours, D7.
    """
    size, m = count(features, "The number of features"), count(rows, "The number of rows")
    spread, delta = math.sqrt(at_least(second_moment, 0, "E y^2")), probability(delta, "delta")
    tail = at_least(largest, 0, "Y") * math.sqrt(-2 * math.log(delta))
    return Bound(
        value=upper(lambda: math.sqrt(size / m) * (spread + tail)),
        assumptions=(UNIFORM, "labels within [-Y, Y]", *_LABELS),
        failure_probability=delta,
        source="D7",
        provenance=OURS,
    )
