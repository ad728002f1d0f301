"""How large buckets are and how many hyperplanes they need: Lemma 4.2 as published, and with constants (ours)."""

from __future__ import annotations

import math
from typing import Any

from lazyneuron.core.errors import AssumptionError
from lazyneuron.core.numbers import real, whole
from lazyneuron.route.theory import OrderBound, count, positive

_LEMMA = "Baykal, Dikkala, Panigrahy, Rashtchian, Wang (2022), arXiv 2208.04461, Lemma 4.2"
_OURS = "ours, by the smallest singular value of a Gaussian matrix (Davidson and Szarek, 2001, theorem II.13)"
_GAUSSIAN = (
    "hyperplanes' directions are independent standard normal vectors, as lazyneuron.route.random_hash draws them",
    "inputs lie on a k-dimensional subspace, or any plane of that dimension",
)


_MOST_HYPERPLANES = 10_000  # whose cells are counted: a number of as many bits


def _counts(dimension: Any, hyperplanes: Any) -> tuple[int, int]:
    k, m = count(dimension, "The dimension"), count(hyperplanes, "The number of hyperplanes")
    if k < 1 or m < 1:
        raise AssumptionError(f"There are at least one dimension and one hyperplane, got {k} and {m}.")
    return k, m


def lsh_hyperplanes(*, dimension: int, constant: float = 1.0) -> OrderBound:
    """Families of parallel hyperplanes with which every bucket is small: of order k, whatever the features' number.

    Args:
        dimension: k.
        constant: C of ``C k``.

    Raises:
        AssumptionError: arguments outside the lemma.
        ConfigError: what are no finite numbers, or a dimension above 2**53.

    Source: Lemma 4.2. An upper bound of k serves as well as k.
    """
    (k, _), factor = _counts(dimension, 1), positive(constant, "The constant")
    return OrderBound(
        value=factor * k,
        constant=factor,
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
        ConfigError: what are no finite numbers.

    Source: Lemma 4.2.
    """
    wide, factor = positive(width, "The width"), positive(constant, "The constant")
    return OrderBound(
        value=wide / factor,
        constant=factor,
        assumptions=(_GAUSSIAN[1], "as many hyperplanes as lsh_hyperplanes says"),
        failure_probability=0.1,
        source=_LEMMA,
    )


def _deviation(failure_probability: Any) -> tuple[float, float]:
    """The probability, checked, and t with ``exp(-t^2 / 2)`` equal to it."""
    found = real(failure_probability, "The probability of failure")
    if not 0 < found < 1:
        raise AssumptionError(f"The probability of failure lies between 0 and 1, got {found:g}.")
    return found, math.sqrt(-2 * math.log(found))


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
        ConfigError: what are no finite numbers, or counts above 2**53.

    Source: ours; Lemma 4.2 gives the order.
    """
    (k, m), wide = _counts(dimension, hyperplanes), positive(width, "The width")
    failure, deviation = _deviation(failure_probability)
    root = math.sqrt(m)
    least = root - math.sqrt(k) - deviation
    constant = root / least if least > 0 else math.inf
    return OrderBound(
        value=wide * constant,
        constant=constant,
        assumptions=_GAUSSIAN,
        failure_probability=failure,
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
        ConfigError: what are no finite numbers, or a dimension above 2**53.

    Source: ours; Lemma 4.2 gives the order.
    """
    k, _ = _counts(dimension, 1)
    over = real(ratio, "The ratio")
    if over <= 1:
        raise AssumptionError(f"A bucket's diameter over its width can be kept to any ratio above 1, got {over:g}.")
    failure, deviation = _deviation(failure_probability)
    root = (math.sqrt(k) + deviation) * (over / (over - 1))
    value = math.ceil(root * root)
    return OrderBound(
        value=value,
        constant=value / k,
        assumptions=_GAUSSIAN,
        failure_probability=failure,
        source=_OURS,
        order_only=False,
    )


def hyperplane_cells(*, hyperplanes: int, dimension: int) -> int:
    """Most buckets of a SimHash table that inputs on a k-dimensional plane reach: the sum of ``C(m, i)`` over i <= k.

    A table of m hyperplanes has ``2^m`` buckets; where ``m > k`` most of them stay empty.

    Args:
        hyperplanes: m, in general position; at most 10,000.
        dimension: k.

    Raises:
        AssumptionError: numbers below 1.
        ConfigError: what are no whole numbers, or larger ones.

    Source: the regions of an arrangement of hyperplanes (Buck, 1943).
    """
    k, m = _counts(dimension, hyperplanes)
    whole(m, "The number of hyperplanes", most=_MOST_HYPERPLANES)
    cells = chosen = 1
    for i in range(min(k, m)):
        chosen = chosen * (m - i) // (i + 1)
        cells += chosen
    return cells
