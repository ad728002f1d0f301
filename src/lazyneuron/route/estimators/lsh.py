"""Least squares in hashed buckets, as a regressor and as a classifier."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from lazyneuron.core.errors import DataError
from lazyneuron.ops.array import tensor_of
from lazyneuron.route.bucket_regression import BucketRegression
from lazyneuron.route.bucket_settings import BucketSettings
from lazyneuron.route.estimators.outputs import (
    FLOATS,
    BaseEstimator,
    ClassifierMixin,
    OutputsMixin,
    check_classification_targets,
    check_is_fitted,
    validate_data,
)


class _Buckets(BaseEstimator):  # type: ignore[misc]
    """Parameters and storage that both estimators share."""

    def __init__(
        self,
        *,
        tables: int = 1,
        hashes: int | None = None,
        degree: int | None = None,
        shrinkage: float = 1.0,
        scale: int | None = None,
        directions: str = "learned",
        capacity: int = 1 << 20,
        held_out: float = 0.1,
        random_state: int = 0,
        impl: str = "auto",
    ) -> None:
        self.tables = tables
        self.hashes = hashes
        self.degree = degree
        self.shrinkage = shrinkage
        self.scale = scale
        self.directions = directions
        self.capacity = capacity
        self.held_out = held_out
        self.random_state = random_state
        self.impl = impl

    def _settings(self) -> BucketSettings:
        given = {name: value for name, value in self.get_params().items() if name != "random_state"}
        return BucketSettings(**given, seed=self.random_state)

    def _fit_all(self, x: Tensor, y: Tensor) -> None:
        model = BucketRegression(self._settings())
        order = torch.randperm(len(x), generator=torch.Generator().manual_seed(self.random_state))[: 1 << 16]
        model.start(x[order], y[order], rows=len(x))
        model.add(x, y)
        model.build(finish=True)
        self.model_ = model

    def _fit_part(self, x: Tensor, y: Tensor) -> None:
        if not hasattr(self, "model_"):
            model = BucketRegression(self._settings())
            model.start(x, y)
            self.model_ = model
        self.model_.add(x, y)

    @property
    def bucket_width_(self) -> float:
        """Width of the buckets in use, in standard deviations; infinite when a single bucket was best."""
        check_is_fitted(self, "model_")
        return self.model_.built().bucket_width

    @property
    def n_buckets_(self) -> int:
        """Buckets of the width in use, over all tables."""
        check_is_fitted(self, "model_")
        return sum(len(self.model_.ladder(number)[-1].counts) for number in range(self.tables))

    @property
    def scale_errors_(self) -> dict[float, float]:
        """Held-out mean squared error by width of the buckets."""
        check_is_fitted(self, "model_")
        width = self.model_.pyramids[0].affine.width
        return {np.inf if s is None else width * 2.0**s: e for s, e in self.model_.built().errors.items()}

    def _rows(self, X: Any) -> Tensor:
        check_is_fitted(self, "model_")
        return tensor_of(validate_data(self, X, reset=False, dtype=FLOATS, ensure_all_finite=False, order="C"))

    def _values(self, X: Any) -> Tensor:
        rows = self._rows(X)
        try:
            return self.model_.predict(rows)
        except DataError:
            validate_data(self, X, reset=False, dtype=FLOATS)  # scikit-learn's own sentence, when it fits
            raise


class LSHRegressor(OutputsMixin, _Buckets):  # type: ignore[misc]
    """Regression in hashed buckets: a constant or an affine function in each, in closed form.

    Rows are hashed by parallel hyperplanes at nested widths, of which held-out rows choose one. A row whose bucket is
    empty is answered for by the next coarser width that knows it, so that a prediction is defined everywhere. The time
    of a prediction does not depend on the number of buckets but through the caches.

    Args:
        tables: independent tables, averaged; more of them are slower and vary less.
        hashes: directions of one table; None takes the number of features, at most 8.
        degree: 0, 1, or None for 1 with up to 16 features and else 0.
        shrinkage: rows that the coarser width's prediction counts for; 0 with ``degree=0`` gives plain bucket means.
        scale: None to choose the width, or a number to fix it at ``8 * 2**-scale`` standard deviations.
        directions: ``"learned"`` turns and stretches buckets along the target's slopes (fitted on a sample),
            ``"orthogonal"`` makes random cubes, ``"gaussian"`` is the published hash.
        capacity: most buckets of a table; above it the finest width is given up.
        held_out: share of rows that choose the width.
        random_state: seed.
        impl: ``"auto"``, ``"native"`` or ``"python"``.

    Attributes:
        bucket_width_: the width in use, in standard deviations.
        scale_errors_: held-out error by width.
        n_buckets_: buckets in use.

    Cost: memory of ``8 (1 + 2 outputs)`` bytes a bucket for degree 0, about ``4 features**2`` more for degree 1, and
        ``4 hashes + 16`` for its name. FLOPs of a prediction: ``tables * 2 features (hashes + degree outputs)``.

    Source: Baykal et al. (2022); scales, shrinkage and learned directions are ours.

    Example:
        >>> import numpy as np
        >>> x = np.random.default_rng(0).uniform(-1, 1, (2000, 2))
        >>> model = LSHRegressor().fit(x, np.abs(x[:, 0]))
        >>> bool(model.score(x, np.abs(x[:, 0])) > 0.95)
        True
    """

    def fit(self, X: Any, y: Any) -> LSHRegressor:
        """Learn from all rows (rows, features) and targets (rows,) or (rows, outputs)."""
        self._fit_all(*self._checked(X, y))
        return self

    def partial_fit(self, X: Any, y: Any) -> LSHRegressor:
        """Learn from some more rows; the first ones fix standardisation and hashes.

        A tenth of the rows, up to 16384, chooses the width and is not learned from.
        """
        self._fit_part(*self._checked(X, y, reset=not hasattr(self, "model_")))
        return self

    def predict(self, X: Any, return_std: bool = False) -> Any:
        """Predicted targets, and on request the spread of the rows in each one's bucket.

        Args:
            X: (rows, features).
            return_std: also return the root mean square residual of the bucket.
        """
        y = self._shaped(self._values(X))
        return (y, self._shaped(self.model_.uncertainty(self._rows(X))[1])) if return_std else y

    def bucket_counts(self, X: Any) -> Any:
        """Rows that each prediction rests on, mean over tables: (rows,)."""
        rows = self._rows(X)
        return self.model_.uncertainty(rows)[0].numpy()


class LSHClassifier(ClassifierMixin, _Buckets):  # type: ignore[misc]
    """Classification in hashed buckets: the classes' shares, estimated as :class:`LSHRegressor` estimates a target.

    Takes the arguments of :class:`LSHRegressor`.

    Attributes:
        classes_: the labels.

    Source: as for :class:`LSHRegressor`.
    """

    def fit(self, X: Any, y: Any) -> LSHClassifier:
        """Learn from all rows (rows, features) and labels (rows,)."""
        X, y = validate_data(self, X, y, dtype=FLOATS)
        check_classification_targets(y)
        self.classes_ = np.unique(y)
        self._fit_all(tensor_of(X), self._targets(y))
        return self

    def partial_fit(self, X: Any, y: Any, classes: Any = None) -> LSHClassifier:
        """Learn from some more rows.

        Args:
            X: (rows, features).
            y: (rows,) labels.
            classes: all labels there will be; needed at the first call.

        Raises:
            DataError: no ``classes`` at the first call, or a label that is none of them.
        """
        first = not hasattr(self, "model_")
        X, y = validate_data(self, X, y, dtype=FLOATS, reset=first)
        check_classification_targets(y)
        if first and classes is None:
            raise DataError("The first call of partial_fit needs `classes`, all labels there will be.")
        if first:
            self.classes_ = np.unique(classes)
        self._fit_part(tensor_of(X), self._targets(y))
        return self

    def _targets(self, y: Any) -> Tensor:
        place = np.searchsorted(self.classes_, y).clip(max=len(self.classes_) - 1)
        if not np.array_equal(self.classes_[place], y):
            raise DataError(
                f"A label is none of the classes {list(self.classes_)}; pass all of them at the first call."
            )
        return torch.nn.functional.one_hot(torch.from_numpy(place), len(self.classes_)).to(torch.float64)

    def predict_proba(self, X: Any) -> Any:
        """Estimated shares of the classes, at least 0 and adding up to 1: (rows, classes)."""
        shares = self._values(X).clamp(min=0.0) + 1e-12
        return (shares / shares.sum(1, keepdim=True)).numpy()

    def predict(self, X: Any) -> Any:
        """The class with the largest share: (rows,)."""
        best = self._values(X).argmax(1)
        return self.classes_[best.numpy()]
