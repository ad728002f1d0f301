"""Least squares and ridge: at once, from sums that add up over batches, and as the most central of several fits."""

from __future__ import annotations

import dataclasses
import warnings

import numpy as np

from lazyneuron.core.errors import DataError
from lazyneuron.learn.solvers.lanczos import least_eigenvalue
from lazyneuron.learn.solvers.solution import LeastEigenvalue, Solution
from lazyneuron.ops.array import Array
from lazyneuron.ops.boolean.design import WalshDesign
from lazyneuron.ops.conjugate_gradients import conjugate_gradients

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
    _check_rows(design.m, design.size, alpha, other="lower the degree, or take solver='ridge', 'kernel' or 'lasso'")
    if design.size <= DENSE:
        return from_gram(design.gram().astype(np.float64), design.analysis(y), design.m, alpha=alpha)
    return _without_a_matrix(design, y, alpha)


def _check_rows(rows: int, features: int, alpha: float, *, other: str) -> None:
    if rows < features and not alpha:
        raise DataError(
            f"Least squares needs at least as many rows as features, got {rows} rows and {features} features; {other}."
        )


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


def _without_a_matrix(design: WalshDesign, y: Array, alpha: float) -> Solution:
    m = design.m
    penalty = np.full(design.size, alpha / m)
    penalty[0] = 0
    target = design.analysis(y) / m
    if not target.any():
        warnings.warn("The labels are orthogonal to every feature.", stacklevel=4)
    end = conjugate_gradients(
        lambda c: design.analysis(design.synthesis(c)) / m + penalty * c,
        target,
        inner=np.dot,
        steps=_MOST_STEPS,
        tolerance=_TOLERANCE,
    )
    if end.reduction > 1e-14:
        raise DataError(
            f"Least squares with {design.size} features on {m} rows is too ill-conditioned to converge in "
            f"{_MOST_STEPS} steps; take more rows, a lower degree, or solver='ridge'."
        )
    return Solution(
        coefficients=end.found,
        gram=None if alpha else least_eigenvalue(design, wanted=GOOD),
        method=f"conjugate gradients without a matrix, {end.steps} steps",
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sums:
    """Sums over rows from which averaging and least squares follow; they add up over batches and over processes.

    Attributes:
        rows: m.
        labels: ``Phi^T y``.
        ones: ``Phi^T 1``.
        gram: ``Phi^T Phi``, or None when only averaging is wanted.
        low, high: range of the labels.
    """

    rows: int
    labels: Array
    ones: Array
    gram: Array | None
    low: float
    high: float

    @staticmethod
    def of(design: WalshDesign, y: Array, *, gram: bool) -> Sums:
        """The sums of some rows."""
        return Sums(
            rows=len(y),
            labels=design.analysis(y),
            ones=design.moments().astype(np.float64),
            gram=design.gram().astype(np.float64) if gram else None,
            low=float(y.min()),
            high=float(y.max()),
        )

    def __add__(self, other: Sums) -> Sums:
        return Sums(
            rows=self.rows + other.rows,
            labels=self.labels + other.labels,
            ones=self.ones + other.ones,
            gram=None if self.gram is None or other.gram is None else self.gram + other.gram,
            low=min(self.low, other.low),
            high=max(self.high, other.high),
        )

    def averages(self, *, center: bool) -> Solution:
        """Averaging."""
        mean = float(self.labels[0]) / self.rows if center else 0.0
        found = (self.labels - mean * self.ones) / self.rows
        found[0] += mean
        return Solution(coefficients=found, gram=None, method="averaging, from sums")

    def least_squares(self, *, alpha: float) -> Solution:
        """Least squares or ridge.

        Raises:
            DataError: there are fewer rows than features, and no penalty.
        """
        assert self.gram is not None
        _check_rows(self.rows, len(self.labels), alpha, other="begin with more rows, or take solver='ridge'")
        return from_gram(self.gram.copy(), self.labels, self.rows, alpha=alpha)


def central_fit(fits: Array) -> int:
    """Which fit has the smallest ball around it that holds more than half of all fits.

    Args:
        fits: coefficients, shape (L, N).

    Returns:
        Its row.

    Raises:
        DataError: there is no fit.

    Source: ours, D6 (d).
    """
    if not len(fits):
        raise DataError("There must be at least one fit to choose from, got none.")
    from scipy.spatial.distance import cdist

    distance = cdist(fits, fits)  # directly: products would cancel where fits are close and large
    return int(np.sort(distance, axis=1)[:, len(fits) // 2].argmin())


def batched_least_squares(x: Array, y: Array, *, degree: int, batches: int) -> Array:
    """Least squares on disjoint batches, and the most central of the fits, shape (N,).

    Raises:
        DataError: a batch has fewer rows than features.

    Source: ours, D6 (d); :func:`batches_for` says how many batches of how many rows.
    """
    rows = len(x) // batches
    fits = []
    for b in range(batches):
        part = slice(b * rows, (b + 1) * rows)
        found = least_squares(WalshDesign(x[part], degree), y[part]).coefficients
        assert found is not None
        fits.append(found)
    stacked = np.stack(fits)
    return np.asarray(stacked[central_fit(stacked)])
