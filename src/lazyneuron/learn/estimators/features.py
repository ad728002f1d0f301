"""Walsh features as a scikit-learn transformer."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from lazyneuron.core.errors import ConfigError
from lazyneuron.learn.checks import check_memory
from lazyneuron.learn.estimators.encoding import Encode, encoded_rows, learn_encoding, read_rows
from lazyneuron.ops.array import Array
from lazyneuron.ops.boolean.reference import columns
from lazyneuron.ops.boolean.subsets import as_tuples, count_subsets, subset_table


class WalshFeatures(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """All products of at most ``degree`` different columns, each encoded as -1 and +1.

    Args:
        degree: the largest number of columns in a product; capped at the number of columns.
        include_bias: keep the empty product, 1.
        max_features: refuse to make more than so many.
        dtype: of the features; int8 is exact and eight times smaller than float64.
        encode: ``"auto"`` takes columns with two values, ``"median"`` cuts any column at its median (no
            guarantee holds).

    Attributes:
        subsets_: the columns of each product, int16 of shape (N, degree), then -1.
        pairs_: the values that became -1 and +1, shape (n, 2).
        n_output_features_: how many features.

    Example:
        >>> WalshFeatures(degree=2).fit_transform([[0, 0], [0, 1]]).tolist()
        [[1.0, -1.0, -1.0, 1.0], [1.0, -1.0, 1.0, -1.0]]
    """

    def __init__(
        self,
        degree: int = 2,
        *,
        include_bias: bool = True,
        max_features: int = 1_000_000,
        dtype: Any = np.float64,
        encode: Encode = "auto",
    ) -> None:
        self.degree = degree
        self.include_bias = include_bias
        self.max_features = max_features
        self.dtype = dtype
        self.encode = encode

    def fit(self, X: Any, y: Any = None) -> WalshFeatures:
        """Learn the two values of each column.

        Raises:
            DataError: a column has more than two values.
            ConfigError: the degree is no whole number from 0, or the features are too many.
        """
        x = read_rows(self, X)
        self.pairs_ = learn_encoding(x, self.encode)
        n = x.shape[1]
        degree = min(self.degree, n)
        size = count_subsets(n, degree)
        alternative = "lower the degree, raise max_features, or use LowDegreeRegressor, which does not write them out"
        if size > self.max_features:
            raise ConfigError(
                f"There are {size} features of degree {degree}, allowed are {self.max_features}; {alternative}."
            )
        check_memory(
            float(np.dtype(self.dtype).itemsize) * size * len(x), "The features", alternative, limit_bytes=64 * 2.0**30
        )
        table = subset_table(n, degree)
        self.subsets_ = table if self.include_bias else table[1:]
        self.n_output_features_ = len(self.subsets_)
        return self

    def transform(self, X: Any) -> Array:
        """The features, shape (m, N).

        Raises:
            DataError: a column holds a value that was not seen when fitting.
        """
        check_is_fitted(self)
        x = encoded_rows(self, X)
        found = columns(x, min(self.degree, x.shape[1]), dtype=self.dtype)
        return found if self.include_bias else found[:, 1:]

    def get_feature_names_out(self, input_features: Any = None) -> Array:
        """``"1"``, the columns' names, and products of names with a space between them."""
        from sklearn.utils.validation import _check_feature_names_in

        check_is_fitted(self)
        names = _check_feature_names_in(self, input_features)
        return np.array([" ".join(names[list(s)]) if s else "1" for s in as_tuples(self.subsets_)], dtype=object)
