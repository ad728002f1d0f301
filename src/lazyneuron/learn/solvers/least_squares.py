"""Least squares and ridge: Cholesky of the Gram matrix where it is small, conjugate gradients without it elsewhere."""

from __future__ import annotations

import warnings

import numpy as np

from lazyneuron.core.errors import DataError
from lazyneuron.learn.solvers.lanczos import LeastEigenvalue, least_eigenvalue
from lazyneuron.learn.solvers.solution import Solution
from lazyneuron.ops.boolean.array import Array
from lazyneuron.ops.boolean.design import WalshDesign

GOOD = 0.5  # the least eigenvalue of the Gram matrix over m that the guarantee needs
DENSE = 3000  # features up to which the Gram matrix is factored
_TOLERANCE = 1e-12
_MOST_STEPS = 1000


def least_squares(design: WalshDesign, y: Array, *, alpha: float = 0.0) -> Solution:
    """Minimise ``|y - Phi c|^2 + alpha |c without the constant|^2``.

    Args:
        design: the features of the rows.
        y: labels, shape (m,).
        alpha: ridge penalty; the constant is not penalised, as in ``Ridge(fit_intercept=True)``.

    Raises:
        DataError: there are fewer rows than features and no penalty, or conjugate gradients do not converge.

    Cost: up to 3000 features, the Gram matrix by popcount and one Cholesky factor; beyond, two products with the design
        for each of some tens of steps, and no matrix; without a penalty as many again for the least eigenvalue.
    """
    if design.m < design.size and not alpha:
        raise DataError(
            f"Least squares needs at least as many rows as features, got {design.m} rows and {design.size} features of "
            "degree "
            f"{design.degree}; lower the degree, or take solver='ridge', 'kernel' or 'lasso'."
        )
    if design.size <= DENSE:
        return from_gram(design.gram().astype(np.float64), design.analysis(y), design.m, alpha=alpha)
    return _conjugate_gradients(design, y, alpha)


def from_gram(gram: Array, moments: Array, rows: int, *, alpha: float) -> Solution:
    """The same from ``Phi^T Phi`` and ``Phi^T y``; the Gram matrix is overwritten."""
    from scipy.linalg import cho_factor, cho_solve, eigh

    least = float(eigh(gram, eigvals_only=True, subset_by_index=[0, 0], check_finite=False)[0]) / max(rows, 1)
    penalty = np.full(len(gram), alpha)
    penalty[0] = 0
    at = np.arange(len(gram))
    gram[at, at] += penalty
    try:
        if least * rows + alpha <= 1e-9 * rows:
            raise np.linalg.LinAlgError
        factor = cho_factor(gram, lower=True, check_finite=False)
        found = cho_solve(factor, moments, check_finite=False)
        found += cho_solve(factor, moments - gram @ found, check_finite=False)
        method = "Cholesky of the Gram matrix"
    except np.linalg.LinAlgError:
        values, vectors = eigh(gram, check_finite=False)
        inverse = np.where(values > 1e-10 * max(values[-1], 1e-300), 1 / np.where(values == 0, 1, values), 0)
        found = vectors @ (inverse * (vectors.T @ moments))
        method = "least norm by the eigenvectors of the Gram matrix"
    return Solution(coefficients=found, gram=LeastEigenvalue.exact(least), method=method)


def _conjugate_gradients(design: WalshDesign, y: Array, alpha: float) -> Solution:
    m = design.m
    penalty = np.full(design.size, alpha / m)
    penalty[0] = 0
    target = design.analysis(y) / m
    found, residual = np.zeros(design.size), target.copy()
    direction, square = residual.copy(), float(residual @ residual)
    first = square
    steps = 0
    while square > _TOLERANCE**2 * first and steps < _MOST_STEPS:
        image = design.analysis(design.synthesis(direction)) / m + penalty * direction
        step = square / float(direction @ image)
        found += step * direction
        residual -= step * image
        after = float(residual @ residual)
        direction = residual + after / square * direction
        square = after
        steps += 1
    if square > 1e-14 * first:
        raise DataError(
            f"Least squares with {design.size} features on {m} rows is too ill-conditioned to converge in "
            f"{_MOST_STEPS} "
            "steps; take more rows, a lower degree, or solver='ridge'."
        )
    if first == 0:
        warnings.warn("The labels are orthogonal to every feature.", stacklevel=4)
    return Solution(
        coefficients=found,
        gram=None if alpha else least_eigenvalue(design, wanted=GOOD),
        method=f"conjugate gradients without a matrix, {steps} steps",
    )
