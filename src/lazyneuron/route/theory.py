"""The published bounds as functions. Their constants are not published: each takes one, and says "order only"."""

from __future__ import annotations

import dataclasses
import math

from lazyneuron.core.errors import AssumptionError

_PAPER = "Baykal, Dikkala, Panigrahy, Rashtchian, Wang (2022), arXiv 2208.04461"


@dataclasses.dataclass(frozen=True, kw_only=True)
class OrderBound:
    """A bound up to a constant.

    Attributes:
        value: with the constant given.
        constant: what was put in for the unspecified one.
        order_only: always True: the paper does not state the constant, so only exponents mean something.
        assumptions: what has to hold.
        failure_probability: at most; 0 where the statement is certain, NaN where the source does not say.
        source: paper and theorem.
    """

    value: float
    constant: float
    assumptions: tuple[str, ...]
    failure_probability: float
    source: str
    order_only: bool = True


def _check(*, lipschitz: float, features: int, dimension: int, error: float, constant: float) -> None:
    if not (lipschitz > 0 and math.isfinite(lipschitz)):
        raise AssumptionError(f"The Lipschitz constant is positive and finite, got {lipschitz}.")
    if not 1 <= dimension <= features:
        raise AssumptionError(f"The dimension is 1 to the number of features ({features}), got {dimension}.")
    if not 0 < error < lipschitz * math.sqrt(features):
        raise AssumptionError(
            f"The error lies between 0 and lipschitz * sqrt(features) = {lipschitz * math.sqrt(features):.3g}, above "
            f"which a constant does; got {error}."
        )
    if not (constant > 0 and math.isfinite(constant)):
        raise AssumptionError(f"The constant is positive and finite, got {constant}.")


def _power(ratio: float, dimension: float) -> float:
    return math.exp(dimension * math.log(ratio)) if dimension * math.log(ratio) < 700 else math.inf


_LSH = (
    "f is Lipschitz on [-1, 1]^d with constant L",
    "inputs are uniform on a k-dimensional subspace (Theorem B.1: on a k-manifold of bounded curvature)",
    "Euclidean hashes with a number of hyperplanes of order k",
)


def lsh_table_size(
    *, lipschitz: float, features: int, dimension: int, error: float, constant: float = 1.0
) -> OrderBound:
    """Buckets with which an LSH learner has uniform error ``error``: of order ``(L sqrt(d) / error)^k``.

    Args:
        lipschitz: L.
        features: d.
        dimension: k of the inputs' subspace or manifold.
        error: wanted largest error, epsilon.
        constant: put in for the unspecified one.

    Raises:
        AssumptionError: arguments outside the theorem.

    Source: Theorem 4.1. The text's ``L sqrt(d)^k / eps^k`` is read with L inside the power, as an L-Lipschitz function
    needs buckets of diameter eps / L.
    """
    _check(lipschitz=lipschitz, features=features, dimension=dimension, error=error, constant=constant)
    value = constant * _power(lipschitz * math.sqrt(features) / error, dimension)
    return OrderBound(
        value=value, constant=constant, assumptions=_LSH, failure_probability=0.2, source=f"{_PAPER}, Theorem 4.1"
    )


def lsh_samples(*, lipschitz: float, features: int, dimension: int, error: float, constant: float = 1.0) -> OrderBound:
    """Samples for the same: the table size times ``k log(L sqrt(d) / error)``.

    Args:
        lipschitz, features, dimension, error, constant: as for :func:`lsh_table_size`.

    Raises:
        AssumptionError: arguments outside the theorem.

    Source: Theorem 4.1.
    """
    size = lsh_table_size(lipschitz=lipschitz, features=features, dimension=dimension, error=error, constant=constant)
    more = dimension * math.log(lipschitz * math.sqrt(features) / error)
    return dataclasses.replace(size, value=size.value * more)


def lsh_forward_flops(
    *, lipschitz: float, features: int, dimension: int, error: float, constant: float = 1.0
) -> OrderBound:
    """FLOPs of one prediction: of order ``d k log(L sqrt(d) / error)``, without any power of 1 / error.

    Args:
        lipschitz, features, dimension, error, constant: as for :func:`lsh_table_size`.

    Raises:
        AssumptionError: arguments outside the theorem.

    Source: Theorem 4.1.
    """
    _check(lipschitz=lipschitz, features=features, dimension=dimension, error=error, constant=constant)
    value = constant * features * dimension * math.log(lipschitz * math.sqrt(features) / error)
    return OrderBound(
        value=value, constant=constant, assumptions=_LSH, failure_probability=0.2, source=f"{_PAPER}, Theorem 4.1"
    )


def nonempty_buckets(*, features: int, dimension: int, width: float, constant: float = 1.0) -> OrderBound:
    """Non-empty buckets of one table: at most ``(2 sqrt(d) / width)^(constant k)``: the exponent grows with k, not d.

    Args:
        features: d.
        dimension: k.
        width: epsilon of the hash.
        constant: in the exponent.

    Raises:
        AssumptionError: arguments outside the lemma.

    Source: Lemma 4.2, with which every bucket also has a diameter of order ``width`` within the region.
    """
    _check(lipschitz=2.0, features=features, dimension=dimension, error=width, constant=constant)
    value = _power(2 * math.sqrt(features) / width, constant * dimension)
    return OrderBound(
        value=value, constant=constant, assumptions=_LSH[1:], failure_probability=0.1, source=f"{_PAPER}, Lemma 4.2"
    )


def dense_width(*, lipschitz: float, features: int, dimension: int, error: float, constant: float = 1.0) -> OrderBound:
    """Width that a dense model with a random bottom layer needs at least: of order ``(sqrt(d) L / (C error))^k``.

    Args:
        lipschitz, features, dimension, error: as for :func:`lsh_table_size`.
        constant: C, inside the power.

    Raises:
        AssumptionError: arguments outside the theorem.

    Source: Theorem 4.3, a lower bound.
    """
    _check(lipschitz=lipschitz, features=features, dimension=dimension, error=error, constant=constant)
    value = _power(lipschitz * math.sqrt(features) / (constant * error), dimension)
    assumptions = ("random bottom layer, trained linear top layer", "a worst-case L-Lipschitz function", _LSH[1])
    return OrderBound(
        value=value,
        constant=constant,
        assumptions=assumptions,
        failure_probability=math.nan,
        source=f"{_PAPER}, Theorem 4.3",
    )


def dense_samples(
    *, lipschitz: float, features: int, dimension: int, error: float, constant: float = 1.0
) -> OrderBound:
    """Samples for the same: the width times ``k log(2 sqrt(d) L / (C error))``.

    Args:
        lipschitz, features, dimension, error, constant: as for :func:`dense_width`.

    Raises:
        AssumptionError: arguments outside the theorem.

    Source: Theorem 4.3.
    """
    width = dense_width(lipschitz=lipschitz, features=features, dimension=dimension, error=error, constant=constant)
    more = dimension * math.log(2 * lipschitz * math.sqrt(features) / (constant * error))
    return dataclasses.replace(width, value=width.value * more)


def dense_forward_flops(
    *, lipschitz: float, features: int, dimension: int, error: float, constant: float = 1.0
) -> OrderBound:
    """FLOPs of one prediction of such a dense model, at least: of order ``d (2 L sqrt(d) / (C error))^k``.

    Beside it stands :func:`lsh_forward_flops`, which has no power of 1 / error.

    Args:
        lipschitz, features, dimension, error, constant: as for :func:`dense_width`.

    Raises:
        AssumptionError: arguments outside the theorem.

    Source: the comparison after Theorem 4.3, stated there for L = 1; L goes with 1 / error, as in the width.
    """
    width = dense_width(lipschitz=lipschitz, features=features, dimension=dimension, error=error, constant=constant)
    value = features * _power(2 * lipschitz * math.sqrt(features) / (constant * error), dimension)
    return dataclasses.replace(width, value=value)
