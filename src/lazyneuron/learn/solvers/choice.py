"""Choosing degree and solver: by cross-validation, by the estimated spectrum, by a bound, by the number of rows."""

from __future__ import annotations

import dataclasses
import math
import warnings
from typing import Protocol

import numpy as np

from lazyneuron.core.arguments import check_choice
from lazyneuron.core.errors import ConfigError, DataError
from lazyneuron.core.numbers import whole
from lazyneuron.learn.bounds.tails import degree_for
from lazyneuron.learn.checks import at_least, check_memory, positive
from lazyneuron.learn.samples import degree_weights_from_samples
from lazyneuron.learn.solvers.averaging import average, thresholded
from lazyneuron.learn.solvers.kernel import kernel_ridge
from lazyneuron.learn.solvers.l1 import absolute, lasso
from lazyneuron.learn.solvers.lanczos import basis_bytes
from lazyneuron.learn.solvers.least_squares import DENSE, least_squares
from lazyneuron.learn.solvers.solution import Solution
from lazyneuron.ops.array import Array
from lazyneuron.ops.boolean.design import WalshDesign
from lazyneuron.ops.boolean.subsets import check_degree, count_subsets

SOLVERS = ("auto", "ols", "ridge", "lmn", "lasso", "threshold", "kernel", "l1")
_BY_BOUND = ("bound", "certificate")  # one rule; the second is its name until 0.1
_RULES = ("auto", "cv", "spectrum", *_BY_BOUND)
_PENALISED = ("auto", "ridge", "lasso", "threshold", "kernel")
_FEATURES = 3000
_PAIRS = 20_000  # rows of which all pairs are taken
_KERNEL_ROWS = 5000


class Options(Protocol):
    """What :class:`LowDegreeRegressor` is given; see there."""

    degree: int | str
    solver: str
    alpha: float | None
    center: bool
    cv: int
    sparsity: int | None
    norm: float | None
    error: float | None
    width: int | None
    memory_limit_gib: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class DegreeChoice:
    """A chosen degree.

    Attributes:
        degree: it.
        rule: ``"given"``, ``"cv"``, ``"spectrum"`` or ``"bound"``.
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


def check_options(of: Options) -> None:
    """Refuse options without meaning and contradictions.

    Raises:
        ConfigError: there is one.
    """
    check_choice("A solver", of.solver, SOLVERS)
    if isinstance(of.degree, str) and of.degree not in _RULES:
        raise ConfigError(f"A degree is a whole number or one of {', '.join(_RULES[:4])}, got {of.degree!r}.")
    if of.alpha is not None:
        at_least(of.alpha, 0, "alpha")
    if of.alpha and of.solver not in _PENALISED:
        raise ConfigError(f"alpha = {of.alpha} contradicts solver={of.solver!r}, which takes no penalty; leave it out.")
    missing = [name for name in ("sparsity", "norm", "error") if getattr(of, name) is None]
    if of.degree in _BY_BOUND and missing:
        raise ConfigError(f"degree={of.degree!r} needs sparsity, norm and error; {', '.join(missing)} is missing.")
    whole(of.cv, "cv, the folds of cross-validation,", least=2)
    if of.memory_limit_gib != math.inf:
        positive(of.memory_limit_gib, "memory_limit_gib")


def choose_degree(of: Options, x: Array, y: Array) -> DegreeChoice:
    """The degree that the options name, or as the rule says that they name.

    Raises:
        ConfigError: a number that is no degree.
        DataError: there are fewer rows than folds.
    """
    n = x.shape[1]
    if of.degree in ("auto", "cv"):
        return by_validation(x, y, folds=min(of.cv, len(y)))
    if of.degree == "spectrum":
        return by_spectrum(x, y)
    if of.degree in _BY_BOUND:
        assert of.sparsity is not None and of.norm is not None and of.error is not None
        found = degree_for(of.error, of.sparsity, norm=of.norm, n=n, s=of.width)
        if found.vacuous:
            warnings.warn(
                f"The bound is vacuous: it names degree {n}, and every function of {n} columns is a "
                "polynomial of that degree; take degree='cv', or allow a larger error.",
                stacklevel=4,
            )
        return DegreeChoice(degree=int(found.value), rule="bound")
    assert not isinstance(of.degree, str)
    return DegreeChoice(degree=check_degree(n, min(of.degree, n)), rule="given")


def choose_solver(of: Options, *, rows: int, n: int, degree: int) -> str:
    """The solver that the options name, or the one that suits so many rows of n columns.

    Raises:
        ConfigError: it would take more memory than allowed.
    """
    solver, features = of.solver, count_subsets(n, degree)
    if solver == "auto" and rows >= 2 * features:
        solver = "ridge" if of.alpha else "ols"
    elif solver == "auto" and rows <= _KERNEL_ROWS:
        solver = "kernel"
    elif solver == "auto":
        solver = "ridge" if of.alpha else "lmn"
    limit = of.memory_limit_gib * 2**30
    if solver == "kernel":
        other = "take fewer rows, or solver='lmn' or 'ridge'"
        check_memory(24.0 * rows**2, f"The kernel matrix of {rows} rows", other, limit_bytes=limit)
        return solver
    other = "lower the degree, or take solver='kernel', whose cost does not depend on it"
    vectors = 8.0 * features * 6 + rows * (n + 32)
    if solver == "ols" and features > DENSE:
        vectors += basis_bytes(features)
    check_memory(vectors, f"Fitting {features} features of degree {degree}", other, limit_bytes=limit)
    return solver


def solve(x: Array, y: Array, *, degree: int, solver: str, of: Options) -> Solution:
    """Fit rows of +-1 by one of the solvers."""
    if solver == "kernel":
        return kernel_ridge(x, y, degree=degree, alpha=of.alpha)
    design = WalshDesign(x, degree)
    if solver == "lmn":
        return average(design, y, center=of.center)
    if solver == "l1":
        return absolute(design, y)
    if solver in ("threshold", "lasso"):
        return (thresholded if solver == "threshold" else lasso)(design, y, alpha=of.alpha)
    return least_squares(design, y, alpha=ridge_penalty(solver, of.alpha))


def ridge_penalty(solver: str, alpha: float | None) -> float:
    """The penalty on squares: 0 for least squares, 1 for ridge unless it is given."""
    if solver != "ridge":
        return 0.0
    return 1.0 if alpha is None else alpha
