"""Choosing the degree: by cross-validation along nested Gram matrices, by the estimated spectrum, or by certificate."""

from __future__ import annotations

import dataclasses

import numpy as np

from lazyneuron.core.errors import DataError
from lazyneuron.learn.samples import degree_weights_from_samples
from lazyneuron.ops.boolean.array import Array
from lazyneuron.ops.boolean.design import WalshDesign
from lazyneuron.ops.boolean.subsets import count_subsets

_FEATURES = 3000
_PAIRS = 20_000  # rows of which all pairs are taken


@dataclasses.dataclass(frozen=True, kw_only=True)
class DegreeChoice:
    """A chosen degree.

    Attributes:
        degree: it.
        rule: ``"given"``, ``"cv"``, ``"spectrum"`` or ``"certificate"``.
        scores: for each degree tried, the error by cross-validation or the weight of the level.
    """

    degree: int
    rule: str
    scores: tuple[float, ...] = ()


def largest_degree(rows: int, n: int, *, features: int = _FEATURES) -> int:
    """The largest degree whose features are at most half the rows and at most ``features``; at least 1 if n is."""
    degree = 0
    while degree < n and count_subsets(n, degree + 1) <= min(rows / 2, features):
        degree += 1
    return max(degree, min(1, n))


def by_validation(x: Array, y: Array, *, folds: int) -> DegreeChoice:
    """The degree with the least squared error over folds of consecutive rows.

    The Gram matrix of the training rows is the whole one minus the fold's, exactly, and the Cholesky factor of each
    degree is a leading block of the next one's.

    Raises:
        DataError: there are fewer rows than folds.
    """
    from scipy.linalg import cholesky, solve_triangular

    m, n = x.shape
    if m < folds:
        raise DataError(f"{folds} folds need at least {folds} rows, got {m}; lower cv or give the degree.")
    top = largest_degree(m - m // folds, n)
    parts = [slice(m * f // folds, m * (f + 1) // folds) for f in range(folds)]
    designs = [WalshDesign(np.ascontiguousarray(x[part]), top) for part in parts]
    grams = [design.gram().astype(np.float64) for design in designs]
    moments = [design.analysis(y[part]) for design, part in zip(designs, parts, strict=True)]
    whole, target = np.sum(grams, axis=0), np.sum(moments, axis=0)
    errors = np.zeros(top + 1)
    for design, part, gram, moment in zip(designs, parts, grams, moments, strict=True):
        left = whole - gram
        left[np.arange(len(left)), np.arange(len(left))] += 1e-8 * m
        factor = cholesky(left, lower=True, check_finite=False)
        forward = solve_triangular(factor, target - moment, lower=True, check_finite=False)
        for d in range(top + 1):
            size = count_subsets(n, d)
            found = np.zeros(design.size)
            found[:size] = solve_triangular(
                factor[:size, :size], forward[:size], lower=True, trans="T", check_finite=False
            )
            errors[d] += float(((y[part] - design.synthesis(found)) ** 2).sum()) / m
    return DegreeChoice(degree=int(errors.argmin()), rule="cv", scores=tuple(errors.tolist()))


def by_spectrum(x: Array, y: Array) -> DegreeChoice:
    """The highest level, within reach of least squares, whose estimated weight exceeds twice its standard error."""
    m, n = x.shape
    top = largest_degree(m, n)
    found = degree_weights_from_samples(x[:_PAIRS], y[:_PAIRS], max_degree=top)
    seen = [t for t in range(1, top + 1) if found.weights[t] > 2 * found.standard_error[t]]
    return DegreeChoice(degree=max(seen, default=0), rule="spectrum", scores=tuple(found.weights.tolist()))
