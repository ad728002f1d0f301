"""What the coefficients of Lanczos' method prove about the ends of a spectrum."""

from __future__ import annotations

import math

import numpy as np

from lazyneuron.core.errors import DataError, ShapeError
from lazyneuron.learn.bounds.bound import OURS, Bound
from lazyneuron.learn.checks import count, finite_array, probability, upper
from lazyneuron.ops.array import Array

_ROUNDING = 1e-10  # of the largest Ritz value; the method reorthogonalises, so that rounding stays some 1e-13
_HALVINGS = 100
_LARGEST = 1e150


def least_eigenvalue_bound(diagonal: object, beside: object, *, size: int, delta: float) -> Bound:
    """What the least eigenvalue of a positive semidefinite matrix is at least, after k steps of Lanczos' method.

    The Ritz values themselves are bounds from the wrong side: each lies between the least and the largest eigenvalue.

    Args:
        diagonal: (k,) of the tridiagonal matrix.
        beside: (k,) its other coefficients, the norm of the last residual included.
        size: N of the matrix.
        delta: failure probability.

    Returns:
        The bound; vacuous where it is not above 0, which the matrix being semidefinite says already.

    Raises:
        ShapeError: there is no step, or the coefficients differ in number.
        DataError: a coefficient is not finite, one beside the diagonal is negative, or squares would overflow.
        ConfigError: a number is out of range.

    Assumes: the start vector was drawn uniformly from the sphere, independently of the matrix.

    Source: ours; proof in the documentation (D6).
    """
    size, delta = count(size, "The size of the matrix"), probability(delta, "delta")
    value = _end(diagonal, beside, size=size, delta=delta, sign=1.0)
    return _bound(value, delta, vacuous=not value > 0)


def largest_eigenvalue_bound(diagonal: object, beside: object, *, size: int, delta: float) -> Bound:
    """What the largest eigenvalue of a symmetric matrix is at most; see :func:`least_eigenvalue_bound`.

    Args:
        diagonal, beside, size, delta: as there.

    Raises:
        ShapeError, DataError, ConfigError: as there.

    Source: ours; proof in the documentation (D6).
    """
    size, delta = count(size, "The size of the matrix"), probability(delta, "delta")
    return _bound(-_end(diagonal, beside, size=size, delta=delta, sign=-1.0), delta, vacuous=False)


def _bound(value: float, delta: float, *, vacuous: bool) -> Bound:
    return Bound(
        value=value,
        assumptions=("Lanczos' method began with a vector drawn uniformly from the sphere",),
        failure_probability=delta,
        source="D6, Lanczos",
        provenance=OURS,
        vacuous=vacuous,
    )


def _end(diagonal: object, beside: object, *, size: int, delta: float, sign: float) -> float:
    """The x below all Ritz values at which the product of their distances is ``prod beside / part``."""
    from scipy.linalg import eigvalsh_tridiagonal

    centre, away = finite_array(diagonal, "diagonal", ndim=1), finite_array(beside, "beside", ndim=1)
    if not len(centre) or len(centre) != len(away):
        raise ShapeError(
            f"Lanczos' method gives as many coefficients beside the diagonal as on it, at least one of each, got "
            f"{len(away)} and {len(centre)}."
        )
    top = max(float(np.abs(centre).max()), float(np.abs(away).max()))
    if away.min() < 0 or top > _LARGEST:
        raise DataError(
            f"Coefficients beside the diagonal are lengths, and none exceeds {_LARGEST:g}, got a least one of "
            f"{away.min():g} and a largest of {top:g}; scale the matrix."
        )
    values = eigvalsh_tridiagonal(sign * centre, away[:-1])
    slack = _ROUNDING * float(np.abs(values).max())
    # how much of any eigenvector the start holds at least, but with probability delta
    log_part = math.log(delta) + (math.log(math.pi / 2) - math.log(size)) / 2
    if size == 1:
        return float(values[0]) - slack
    target = float(np.log(np.maximum(away, slack)).sum()) - log_part if slack else -math.inf
    if target == -math.inf:  # the zero matrix
        return float(values[0])
    high = float(values[0])
    low = high - upper(lambda: math.exp(target / len(values)))
    if low == -math.inf:
        return low
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if middle in (low, high):
            break
        if _log_product(values - middle) > target:
            low = middle
        else:
            high = middle
    return low - slack


def _log_product(distances: Array) -> float:
    return float(np.log(np.maximum(distances, 1e-300)).sum())
