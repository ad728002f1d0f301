"""How large buckets are and how many hyperplanes they need: Lemma 4.2 as published, and with constants (ours)."""

from __future__ import annotations

import math

from lazyneuron.core.errors import AssumptionError
from lazyneuron.route.theory import OrderBound

_LEMMA = "Baykal, Dikkala, Panigrahy, Rashtchian, Wang (2022), arXiv 2208.04461, Lemma 4.2"
_OURS = "ours, by the smallest singular value of a Gaussian matrix (Davidson and Szarek, 2001, theorem II.13)"
_GAUSSIAN = (
    "hyperplanes' directions are independent standard normal vectors, as lazyneuron.route.random_hash draws them",
    "inputs lie on a k-dimensional subspace, or any plane of that dimension",
)


def _positive(**values: float) -> None:
    for name, value in values.items():
        if not (value > 0 and math.isfinite(value)):
            raise AssumptionError(f"The {name} is positive and finite, got {value}.")


def _counts(dimension: int, hyperplanes: int) -> None:
    if dimension < 1 or hyperplanes < 1:
        raise AssumptionError(
            f"There are at least one dimension and one hyperplane, got {dimension} and {hyperplanes}."
        )


def lsh_hyperplanes(*, dimension: int, constant: float = 1.0) -> OrderBound:
    """Families of parallel hyperplanes with which every bucket is small: of order k, whatever the features' number.

    Args:
        dimension: k.
        constant: C of ``C k``.

    Raises:
        AssumptionError: arguments outside the lemma.

    Source: Lemma 4.2. An upper bound of k serves as well as k.
    """
    _counts(dimension, 1)
    _positive(constant=constant)
    return OrderBound(
        value=constant * dimension,
        constant=constant,
        assumptions=(_GAUSSIAN[1],),
        failure_probability=0.1,
        source=_LEMMA,
    )


def bucket_diameter(*, width: float, constant: float = 1.0) -> OrderBound:
    """Largest distance of two inputs in one bucket: of order ``width``, with so many hyperplanes.

    Args:
        width: distance of neighbouring hyperplanes, epsilon.
        constant: c of ``width / c``.

    Raises:
        AssumptionError: a number that is not positive.

    Source: Lemma 4.2.
    """
    _positive(width=width, constant=constant)
    return OrderBound(
        value=width / constant,
        constant=constant,
        assumptions=(_GAUSSIAN[1], "as many hyperplanes as lsh_hyperplanes says"),
        failure_probability=0.1,
        source=_LEMMA,
    )


def _deviation(failure_probability: float) -> float:
    if not 0 < failure_probability < 1:
        raise AssumptionError(f"The probability of failure lies between 0 and 1, got {failure_probability}.")
    return math.sqrt(2 * math.log(1 / failure_probability))


def gaussian_bucket_diameter(
    *, width: float, dimension: int, hyperplanes: int, failure_probability: float = 0.1
) -> OrderBound:
    """The same with its constant: at most ``width sqrt(D) / (sqrt(D) - sqrt(k) - t)``, ``t^2 = 2 log(1 / failure)``.

    Two inputs of a bucket differ by some v with ``|a_i . v| < width`` for all D directions, so that
    ``sigma |v| <= |A v| < width sqrt(D)`` with the smallest singular value sigma of A on the subspace, which is
    below ``sqrt(D) - sqrt(k) - t`` with probability ``exp(-t^2 / 2)`` at most.

    Args:
        width: distance of neighbouring hyperplanes.
        dimension: k.
        hyperplanes: D, directions of one table.
        failure_probability: of the directions' draw.

    Returns:
        The bound; infinite, and so empty, where D is too small for this k and probability.

    Raises:
        AssumptionError: numbers below 1, a width that is not positive, or a probability outside (0, 1).

    Source: ours; Lemma 4.2 gives the order.
    """
    _counts(dimension, hyperplanes)
    _positive(width=width)
    root = math.sqrt(hyperplanes)
    least = root - math.sqrt(dimension) - _deviation(failure_probability)
    return OrderBound(
        value=width * root / least if least > 0 else math.inf,
        constant=root / least if least > 0 else math.inf,
        assumptions=_GAUSSIAN,
        failure_probability=failure_probability,
        source=_OURS,
        order_only=False,
    )


def gaussian_hyperplanes(*, dimension: int, ratio: float = 2.0, failure_probability: float = 0.1) -> OrderBound:
    """Directions with which no bucket's diameter is above ``ratio`` widths: ``((sqrt(k) + t) ratio / (ratio - 1))^2``.

    Args:
        dimension: k.
        ratio: largest diameter over the width, above 1.
        failure_probability: of the directions' draw.

    Returns:
        The least whole number for which :func:`gaussian_bucket_diameter` says so. It grows with k as in Lemma 4.2.

    Raises:
        AssumptionError: no dimension, a ratio of 1 or less, or a probability outside (0, 1).

    Source: ours; Lemma 4.2 gives the order.
    """
    _counts(dimension, 1)
    if not (ratio > 1 and math.isfinite(ratio)):
        raise AssumptionError(f"A bucket's diameter over its width can be kept to any ratio above 1, got {ratio}.")
    root = (math.sqrt(dimension) + _deviation(failure_probability)) * ratio / (ratio - 1)
    value = math.ceil(root * root)
    return OrderBound(
        value=value,
        constant=value / dimension,
        assumptions=_GAUSSIAN,
        failure_probability=failure_probability,
        source=_OURS,
        order_only=False,
    )


def hyperplane_cells(*, hyperplanes: int, dimension: int) -> int:
    """Most buckets of a SimHash table that inputs on a k-dimensional plane reach: the sum of ``C(m, i)`` over i <= k.

    A table of m hyperplanes has ``2^m`` buckets; where ``m > k`` most of them stay empty.

    Args:
        hyperplanes: m, in general position.
        dimension: k.

    Raises:
        AssumptionError: numbers below 1.

    Source: the regions of an arrangement of hyperplanes (Buck, 1943).
    """
    _counts(dimension, hyperplanes)
    return sum(math.comb(hyperplanes, i) for i in range(min(dimension, hyperplanes) + 1))
