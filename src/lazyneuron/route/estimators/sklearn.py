"""The parts of scikit-learn that the estimators stand on, or one sentence when it is missing."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from lazyneuron.core.errors import ImplUnavailable

try:
    from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
    from sklearn.utils.multiclass import check_classification_targets
    from sklearn.utils.validation import check_is_fitted, validate_data
except ImportError as error:
    raise ImplUnavailable("The estimators need scikit-learn; run pip install 'lazyneuron[learn]'.") from error

__all__ = [
    "BaseEstimator",
    "ClassifierMixin",
    "RegressorMixin",
    "check_classification_targets",
    "check_is_fitted",
    "rows_of",
    "validate_data",
]

FLOATS = (np.float64, np.float32)


def rows_of(array: Any) -> Tensor:
    """A numpy array as a tensor without a copy, unless it is read-only or not contiguous."""
    dense = np.ascontiguousarray(array)
    return torch.from_numpy(dense if dense.flags.writeable else dense.copy())
