"""Signs of polynomials of low degree, as a scikit-learn classifier."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted

from lazyneuron.core.errors import DataError
from lazyneuron.learn.estimators.encoding import Encode, read_rows
from lazyneuron.learn.estimators.regressor import LowDegreeRegressor
from lazyneuron.ops.array import Array


class LowDegreeClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Regresses each class, as -1 and +1, on Walsh features and takes the largest; two classes need one regression.

    With two classes the cut is where the training error is least (for ``solver="l1"``, as the guarantee of L1
    regression asks) or 0.

    Args:
        degree: as of :class:`LowDegreeRegressor`.
        solver: as there.
        alpha: as there.
        cv: as there.
        encode: as there.

    Attributes:
        classes_: the labels.
        regressors_: one for each class, a single one for two classes.
        threshold_: the cut for two classes.

    Source: Kalai, Klivans, Mansour, Servedio (2008) for L1 regression.
    """

    def __init__(
        self,
        degree: int | str = "auto",
        *,
        solver: str = "auto",
        alpha: float | None = None,
        cv: int = 5,
        encode: Encode = "auto",
    ) -> None:
        self.degree = degree
        self.solver = solver
        self.alpha = alpha
        self.cv = cv
        self.encode = encode

    def fit(self, X: Any, y: Any) -> LowDegreeClassifier:
        """Fit.

        Raises:
            DataError: there is only one class, or as for :meth:`LowDegreeRegressor.fit`.
        """
        x, labels = read_rows(self, X, y)
        check_classification_targets(labels)
        self.classes_, index = np.unique(labels, return_inverse=True)
        if len(self.classes_) < 2:
            raise DataError(f"A classifier needs at least 2 classes, got 1 class: {self.classes_[0]}.")
        wanted = [1] if len(self.classes_) == 2 else range(len(self.classes_))
        self.regressors_ = [self._regressor().fit(x, np.where(index == c, 1.0, -1.0)) for c in wanted]
        self.threshold_ = 0.0
        if len(self.classes_) == 2 and self.solver == "l1":
            self.threshold_ = _best_cut(self.regressors_[0].predict(x), index == 1)
        return self

    def decision_function(self, X: Any) -> Array:
        """Above 0 for the second of two classes, shape (m,); a column for each of more classes."""
        check_is_fitted(self)
        x = read_rows(self, X, reset=False)
        found = [regressor.predict(x) for regressor in self.regressors_]
        return found[0] - self.threshold_ if len(found) == 1 else np.column_stack(found)

    def predict(self, X: Any) -> Array:
        """Labels, shape (m,)."""
        values = self.decision_function(X)
        index = (values > 0).astype(int) if values.ndim == 1 else values.argmax(axis=1)
        return np.asarray(self.classes_[index])

    def _regressor(self) -> LowDegreeRegressor:
        return LowDegreeRegressor(self.degree, solver=self.solver, alpha=self.alpha, cv=self.cv, encode=self.encode)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.poor_score = True
        return tags


def _best_cut(values: Array, positive: Array) -> float:
    """The cut within [-1, 1] with the least training error, between two values."""
    order = np.argsort(values)
    sorted_values, hits = values[order], positive[order]
    errors = np.concatenate([[0], np.cumsum(hits)]) + np.concatenate([np.cumsum((~hits)[::-1])[::-1], [0]])
    edges = np.concatenate(
        [[sorted_values[0] - 1], (sorted_values[1:] + sorted_values[:-1]) / 2, [sorted_values[-1] + 1]]
    )
    return float(np.clip(edges[int(errors.argmin())], -1, 1))
