"""Polynomials of low degree on two-valued columns, as a scikit-learn regressor."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from lazyneuron.core.errors import ConfigError, DataError
from lazyneuron.learn.estimators.encoding import Encode, apply_encoding, encoded_rows, learn_encoding, read_rows
from lazyneuron.learn.krawtchouk import walsh_kernel
from lazyneuron.learn.solvers.choice import (
    DegreeChoice,
    check_options,
    choose_degree,
    choose_solver,
    ridge_penalty,
    solve,
)
from lazyneuron.learn.solvers.least_squares import GOOD, Sums
from lazyneuron.learn.solvers.solution import Solution
from lazyneuron.ops.array import Array
from lazyneuron.ops.boolean.design import WalshDesign
from lazyneuron.ops.boolean.subsets import count_subsets, sizes, subset_table

_STREAMED = 6000  # features up to which sums of the Gram matrix are kept by partial_fit


def _streams(estimator: LowDegreeRegressor) -> bool:
    """Whether the sums of the solver add up over batches.

    Raises:
        AttributeError: they do not.
    """
    if isinstance(estimator.degree, str) or estimator.solver not in ("ols", "ridge", "lmn"):
        raise AttributeError(
            "partial_fit needs a degree that is a number and solver='lmn', 'ols' or 'ridge', whose sums add up; got "
            f"degree={estimator.degree!r} and solver={estimator.solver!r}."
        )
    return True


class GramWarning(UserWarning):
    """The Gram matrix is worse than the guarantee assumes."""


class LowDegreeRegressor(RegressorMixin, BaseEstimator):  # type: ignore[misc]
    """Fits a multilinear polynomial of low degree; sparsely activated networks are close to one under uniform inputs.

    Args:
        degree: a number, or how to choose it: ``"auto"`` and ``"cv"`` by cross-validation along the degrees,
            ``"spectrum"`` by the estimated weight of each level, ``"bound"`` from a bound on the tail.
        solver: ``"ols"``, ``"ridge"``, ``"lmn"`` (averaging), ``"lasso"``, ``"threshold"``, ``"kernel"``, ``"l1"``,
            or ``"auto"``: least squares (ridge with a penalty) from two rows a feature on, else the kernel up to 5000
            rows, else averaging (ridge with a penalty).
        alpha: penalty of ridge (1), lasso and threshold (the noise level), kernel (best by leave-one-out).
        center: averaging takes the mean out first.
        clip: predictions stay within the range of the training labels.
        cv: folds.
        sparsity: k of this bound.
        norm: its W.
        error: its squared error.
        width: its s, optional.
        encode: ``"auto"`` takes columns with two values; ``"median"`` cuts any column (no guarantee holds).
        memory_limit_gib: refuse what would take more.

    Attributes:
        coef_: coefficients in the order of ``subsets_``, the constant first; None when they are too many to write out.
        subsets_: columns of each product, int16 of shape (N, degree), then -1.
        degree_, degree_choice_: the degree, and how it was chosen.
        weight_by_degree_: sums of squared coefficients.
        gram_min_eigenvalue_: what the least eigenvalue of the Gram matrix over m is at least; the guarantee needs 1/2.
            Exact up to 3000 features; beyond, least squares proves a bound, until it is good enough, by Lanczos'
            method. None if not computed.
        gram_bound_: the same with its assumptions and failure probability.
        solver_, method_: which solver, and what it did.
        pairs_: the values that became -1 and +1.

    Source:
        Linial, Mansour, Nisan (1993); Awasthi, Dikkala, Kamath, Meka (2024); guarantees D6, D7 ours, not peer reviewed.

    Example:
        >>> import itertools
        >>> X = np.array(list(itertools.product([0, 1], repeat=4)) * 2)
        >>> model = LowDegreeRegressor(degree=2).fit(X, 3.0 * (X[:, 0] == X[:, 1]))
        >>> model.coef_.round(6)[[0, 5]].tolist()
        [1.5, 1.5]
    """

    def __init__(
        self,
        degree: int | str = "auto",
        *,
        solver: str = "auto",
        alpha: float | None = None,
        center: bool = True,
        clip: bool = False,
        cv: int = 5,
        sparsity: int | None = None,
        norm: float | None = None,
        error: float | None = None,
        width: int | None = None,
        encode: Encode = "auto",
        memory_limit_gib: float = 4.0,
    ) -> None:
        self.degree = degree
        self.solver = solver
        self.alpha = alpha
        self.center = center
        self.clip = clip
        self.cv = cv
        self.sparsity = sparsity
        self.norm = norm
        self.error = error
        self.width = width
        self.encode = encode
        self.memory_limit_gib = memory_limit_gib

    def fit(self, X: Any, y: Any) -> LowDegreeRegressor:
        """Fit.

        Args:
            X: two-valued columns, shape (m, n).
            y: labels, shape (m,).

        Raises:
            DataError: a column has more than two values, labels are constant, or rows are fewer than the solver needs.
            ConfigError: an option has no meaning, options contradict each other, or the work would not fit in memory.
        """
        check_options(self)
        x, target = self._read(X, y, first=True)
        if len(target) < 2:
            raise DataError("Learning needs at least 2 rows, got n_samples = 1.")
        if np.ptp(target) == 0:
            raise DataError(f"All labels equal {target[0]:g}; there is nothing to learn from a constant.")
        self.degree_choice_ = choose_degree(self, x, target)
        self.degree_ = self.degree_choice_.degree
        self._sums: Any = None
        self.solver_ = choose_solver(self, rows=len(x), n=x.shape[1], degree=self.degree_)
        self._keep(solve(x, target, degree=self.degree_, solver=self.solver_, of=self), x, target)
        return self

    @available_if(_streams)  # type: ignore[untyped-decorator]
    def partial_fit(self, X: Any, y: Any) -> LowDegreeRegressor:
        """Add rows; exact for averaging (without centring) and for least squares and ridge up to 6000 features.

        The encoding is learnt from the first rows, which have to hold both values of each column.

        Raises:
            AttributeError: the degree is not given as a number, or the solver keeps no sums.
            ConfigError: the Gram matrix would be too large.
            DataError: as for :meth:`fit`.
        """
        check_options(self)
        first = getattr(self, "_sums", None) is None
        x, target = self._read(X, y, first=first)
        n = x.shape[1]
        self.degree_ = min(self.degree, n)
        self.degree_choice_ = DegreeChoice(degree=self.degree_, rule="given")
        self.solver_ = self.solver
        design = WalshDesign(x, self.degree_)
        if self.solver != "lmn" and design.size > _STREAMED:
            raise ConfigError(
                f"partial_fit keeps the Gram matrix, {design.size} features are more than {_STREAMED}; "
                "take solver='lmn'."
            )
        sums = Sums.of(design, target, gram=self.solver != "lmn")
        self._sums = sums if first else self._sums + sums
        if self.solver == "lmn":
            solution = self._sums.averages(center=self.center)
        else:
            solution = self._sums.least_squares(alpha=ridge_penalty(self.solver, self.alpha))
        self._keep(solution, None, np.array([self._sums.low, self._sums.high]))
        return self

    def predict(self, X: Any) -> Array:
        """Values, shape (m,).

        Raises:
            DataError: a column holds a value that was not seen when fitting.
        """
        check_is_fitted(self)
        x = encoded_rows(self, X)
        if self.coef_ is not None:
            found = WalshDesign(x, self.degree_).synthesis(self.coef_)
        else:
            rows = max(2**25 // len(self._support), 1)
            parts = [
                walsh_kernel(x[b : b + rows], self._support, degree=self.degree_) @ self.dual_coef_ + self._constant
                for b in range(0, len(x), rows)
            ]
            found = np.concatenate(parts or [np.empty(0)])
        return np.clip(found, *self.range_) if self.clip else found

    def _read(self, x: Any, y: Any, *, first: bool) -> tuple[Array, Array]:
        rows, target = read_rows(self, x, y, reset=first, y_numeric=True)
        if first:
            self.pairs_ = learn_encoding(rows, self.encode)
        return apply_encoding(rows, self.pairs_, self.encode), np.asarray(target, np.float64)

    def _keep(self, solution: Solution, x: Array | None, y: Array) -> None:
        n = self.n_features_in_
        self.range_ = (float(y.min()), float(y.max()))
        self.method_ = solution.method
        self.gram_bound_ = None if solution.gram is None else solution.gram.bound
        self.gram_min_eigenvalue_ = None if self.gram_bound_ is None else self.gram_bound_.value
        self.coef_ = solution.coefficients
        if solution.dual is not None:
            assert x is not None
            self.dual_coef_, self._support, self._constant = solution.dual, x, solution.constant
            if count_subsets(n, self.degree_) <= 50_000:
                self.coef_ = WalshDesign(x, self.degree_).analysis(solution.dual)
                self.coef_[0] = solution.constant + self.coef_[0]
        if self.coef_ is not None:
            self.subsets_ = subset_table(n, self.degree_)
            weights = np.asarray(self.coef_) ** 2
            self.weight_by_degree_ = np.bincount(sizes(n, self.degree_), weights=weights, minlength=self.degree_ + 1)
        if self.solver_ == "ols" and solution.gram is not None and solution.gram.bound.value < GOOD:
            warnings.warn(
                f"The least eigenvalue of the Gram matrix {solution.gram.against(GOOD)} that the guarantee of least "
                "squares assumes; take more rows (about 12 a feature) or a lower degree.",
                GramWarning,
                stacklevel=3,
            )

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.regressor_tags.poor_score = True
        return tags
