"""The published bounds as functions. Their constants are not published: each takes one, and says "order only"."""

from __future__ import annotations

import dataclasses
import math
import sys
from typing import Any

from lazyneuron.core.errors import AssumptionError
from lazyneuron.core.numbers import real, whole

_MOST = 2**53  # what a float counts exactly
_LARGEST = math.log(sys.float_info.max)
_PAPER = "Baykal, Dikkala, Panigrahy, Rashtchian, Wang (2022), arXiv 2208.04461"


@dataclasses.dataclass(frozen=True, kw_only=True)
class OrderBound:
    """A bound up to a constant.

    Attributes:
        value: with the constant given; infinite where a float does not hold it.
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


def count(value: Any, name: str) -> int:
    """A whole number that a float holds exactly, checked; ranges are the theorem's.

    Raises:
        ConfigError: none, or above 2**53 in size.
    """
    return whole(whole(value, name, most=_MOST), name, least=-_MOST)


def positive(value: Any, name: str) -> float:
    """A finite number above 0, checked.

    Raises:
        AssumptionError: it is not above 0.
        ConfigError: it is no finite number.
    """
    found = real(value, name)
    if found <= 0:
        raise AssumptionError(f"{name} is positive and finite, got {found:g}.")
    return found


def from_logarithm(logarithm: float) -> float:
    """The number; infinite where a float does not hold it."""
    return math.exp(logarithm) if logarithm < _LARGEST else math.inf


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Sizes:
    """A theorem's arguments, checked, and the logarithm of ``lipschitz sqrt(features) / error``."""

    features: int
    dimension: int
    constant: float
    ratio: float


def _sizes(*, lipschitz: Any, features: Any, dimension: Any, error: Any, constant: Any) -> _Sizes:
    slope = positive(lipschitz, "The Lipschitz constant")
    d, k = _dimensions(features, dimension)
    wanted, factor = real(error, "The error"), positive(constant, "The constant")
    ratio = math.log(slope) + math.log(d) / 2 - (math.log(wanted) if wanted > 0 else math.inf)
    if not 0 < wanted < slope * math.sqrt(d) or ratio <= 0:
        raise AssumptionError(
            f"The error lies between 0 and lipschitz * sqrt(features) = {slope * math.sqrt(d):.3g}, above which a "
            f"constant does; got {wanted:g}."
        )
    return _Sizes(features=d, dimension=k, constant=factor, ratio=ratio)


def _dimensions(features: Any, dimension: Any) -> tuple[int, int]:
    d, k = count(features, "The number of features"), count(dimension, "The dimension")
    if d < 1:
        raise AssumptionError(f"There is at least one feature, got {d}.")
    if not 1 <= k <= d:
        raise AssumptionError(f"The dimension is 1 to the number of features ({d}), got {k}.")
    return d, k


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
        ConfigError: what are no finite numbers, or sizes above 2**53.

    Source: Theorem 4.1. The text's ``L sqrt(d)^k / eps^k`` is read with L inside the power, as an L-Lipschitz function
    needs buckets of diameter eps / L.
    """
    at = _sizes(lipschitz=lipschitz, features=features, dimension=dimension, error=error, constant=constant)
    value = from_logarithm(math.log(at.constant) + at.dimension * at.ratio)
    return OrderBound(
        value=value, constant=at.constant, assumptions=_LSH, failure_probability=0.2, source=f"{_PAPER}, Theorem 4.1"
    )


def lsh_samples(*, lipschitz: float, features: int, dimension: int, error: float, constant: float = 1.0) -> OrderBound:
    """Samples for the same: the table size times ``k log(L sqrt(d) / error)``.

    Args:
        lipschitz, features, dimension, error, constant: as for :func:`lsh_table_size`.

    Raises:
        AssumptionError: arguments outside the theorem.
        ConfigError: what are no finite numbers, or sizes above 2**53.

    Source: Theorem 4.1.
    """
    at = _sizes(lipschitz=lipschitz, features=features, dimension=dimension, error=error, constant=constant)
    size = lsh_table_size(lipschitz=lipschitz, features=features, dimension=dimension, error=error, constant=constant)
    return dataclasses.replace(size, value=size.value * at.dimension * at.ratio)


def lsh_forward_flops(
    *, lipschitz: float, features: int, dimension: int, error: float, constant: float = 1.0
) -> OrderBound:
    """FLOPs of one prediction: of order ``d k log(L sqrt(d) / error)``, without any power of 1 / error.

    Args:
        lipschitz, features, dimension, error, constant: as for :func:`lsh_table_size`.

    Raises:
        AssumptionError: arguments outside the theorem.
        ConfigError: what are no finite numbers, or sizes above 2**53.

    Source: Theorem 4.1.
    """
    at = _sizes(lipschitz=lipschitz, features=features, dimension=dimension, error=error, constant=constant)
    value = at.constant * at.features * at.dimension * at.ratio
    return OrderBound(
        value=value, constant=at.constant, assumptions=_LSH, failure_probability=0.2, source=f"{_PAPER}, Theorem 4.1"
    )


def nonempty_buckets(*, features: int, dimension: int, width: float, constant: float = 1.0) -> OrderBound:
    """Non-empty buckets of one table: at most ``(2 sqrt(d) / width)^(constant k)``: the exponent grows with k, not d.

    Args:
        features: d.
        dimension: k.
        width: epsilon of the hash, below the diameter ``2 sqrt(d)`` of the cube.
        constant: in the exponent.

    Raises:
        AssumptionError: arguments outside the lemma.
        ConfigError: what are no finite numbers, or sizes above 2**53.

    Source: Lemma 4.2, with which every bucket also has a diameter of order ``width`` within the region.
    """
    d, k = _dimensions(features, dimension)
    wide, exponent = positive(width, "The width"), positive(constant, "The constant")
    ratio = math.log(2) + math.log(d) / 2 - math.log(wide)
    if wide >= 2 * math.sqrt(d) or ratio <= 0:
        raise AssumptionError(
            f"The width lies below 2 sqrt(features) = {2 * math.sqrt(d):.3g}, the diameter of the cube that the inputs "
            f"are from, got {wide:g}."
        )
    value = from_logarithm(exponent * k * ratio)
    return OrderBound(
        value=value, constant=exponent, assumptions=_LSH[1:], failure_probability=0.1, source=f"{_PAPER}, Lemma 4.2"
    )


def dense_width(*, lipschitz: float, features: int, dimension: int, error: float, constant: float = 1.0) -> OrderBound:
    """Width that a dense model with a random bottom layer needs at least: of order ``(sqrt(d) L / (C error))^k``.

    Args:
        lipschitz, features, dimension, error: as for :func:`lsh_table_size`.
        constant: C, inside the power; with the error it stays below ``L sqrt(d)``, or else the bound says nothing.

    Raises:
        AssumptionError: arguments outside the theorem.
        ConfigError: what are no finite numbers, or sizes above 2**53.

    Source: Theorem 4.3, a lower bound.
    """
    at = _sizes(lipschitz=lipschitz, features=features, dimension=dimension, error=error, constant=constant)
    more = at.ratio - math.log(at.constant)
    if more <= 0:
        raise AssumptionError(
            f"The constant lies below lipschitz * sqrt(features) / error = {from_logarithm(at.ratio):.3g}, above which "
            f"one unit is enough, got {at.constant:g}."
        )
    value = from_logarithm(at.dimension * more)
    assumptions = ("random bottom layer, trained linear top layer", "a worst-case L-Lipschitz function", _LSH[1])
    return OrderBound(
        value=value,
        constant=at.constant,
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
        ConfigError: what are no finite numbers, or sizes above 2**53.

    Source: Theorem 4.3.
    """
    width = dense_width(lipschitz=lipschitz, features=features, dimension=dimension, error=error, constant=constant)
    at = _sizes(lipschitz=lipschitz, features=features, dimension=dimension, error=error, constant=constant)
    more = at.dimension * (math.log(2) + at.ratio - math.log(at.constant))
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
        ConfigError: what are no finite numbers, or sizes above 2**53.

    Source: the comparison after Theorem 4.3, stated there for L = 1; L goes with 1 / error, as in the width.
    """
    width = dense_width(lipschitz=lipschitz, features=features, dimension=dimension, error=error, constant=constant)
    at = _sizes(lipschitz=lipschitz, features=features, dimension=dimension, error=error, constant=constant)
    power = from_logarithm(at.dimension * (math.log(2) + at.ratio - math.log(at.constant)))
    return dataclasses.replace(width, value=at.features * power)
