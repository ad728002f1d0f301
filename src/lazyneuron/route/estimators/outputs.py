"""What both regressors take and give: one output or several, in scikit-learn's contract."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

from lazyneuron.core.errors import ImplUnavailable
from lazyneuron.ops.array import tensor_of

try:  # the estimators beside this file take these names from here, so that one sentence says what is missing
    from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
    from sklearn.utils.multiclass import check_classification_targets
    from sklearn.utils.validation import check_is_fitted, validate_data
except ImportError as error:
    raise ImplUnavailable("The estimators need scikit-learn; run pip install 'lazyneuron[learn]'.") from error

__all__ = [
    "FLOATS",
    "BaseEstimator",
    "ClassifierMixin",
    "OutputsMixin",
    "check_classification_targets",
    "check_is_fitted",
    "validate_data",
]

FLOATS = (np.float64, np.float32)


class OutputsMixin(RegressorMixin):  # type: ignore[misc]
    """A regressor of targets (rows,) or (rows, outputs)."""

    single_output_: bool

    def _checked(self, X: Any, y: Any, *, reset: bool = True) -> tuple[Tensor, Tensor]:
        """Rows (rows, features), and targets (rows, outputs) in float64."""
        X, y = validate_data(self, X, y, dtype=FLOATS, multi_output=True, y_numeric=True, reset=reset)
        self.single_output_ = y.ndim == 1
        return tensor_of(X), tensor_of(y.reshape(len(y), -1), dtype=np.float64)

    def _shaped(self, y: Tensor) -> Any:
        return y[:, 0].numpy() if self.single_output_ else y.numpy()

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags
