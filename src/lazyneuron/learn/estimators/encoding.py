"""Columns with two values become -1 and +1; anything else is refused, or cut at the median when that is asked for."""

from __future__ import annotations

from typing import Literal

import numpy as np

from lazyneuron.core.errors import ConfigError, DataError, ShapeError
from lazyneuron.ops.boolean.array import Array

Encode = Literal["auto", "median"]
_ROWS = 1 << 16


def learn_encoding(x: Array, encode: Encode) -> Array:
    """The two values of each column, (low, high), shape (n, 2); for ``"median"`` the median twice.

    Columns of -1 and 1, or of 0 and 1 everywhere, keep their meaning even where a column holds only one of the two.

    Raises:
        ConfigError: the name is unknown.
        DataError: a column has more than two values.
    """
    if encode not in ("auto", "median"):
        raise ConfigError(f"encode is 'auto' or 'median', got {encode!r}.")
    if encode == "median":
        middle = np.median(x, axis=0).astype(np.float64)
        return np.column_stack([middle, middle])
    low, high = x.min(axis=0).astype(np.float64), x.max(axis=0).astype(np.float64)
    for begin in range(0, len(x), _ROWS):
        block = x[begin : begin + _ROWS]
        wrong = ~((block == low) | (block == high)).all(axis=0)
        if wrong.any():
            raise _refusal(x, int(np.flatnonzero(wrong)[0]))
    for pair in ((-1.0, 1.0), (0.0, 1.0)):
        if np.isin(low, pair).all() and np.isin(high, pair).all():
            low, high = np.full(len(low), pair[0]), np.full(len(low), pair[1])
            break
    return np.column_stack([low, high])


def apply_encoding(x: Array, pairs: Array, encode: Encode) -> Array:
    """Rows as int8 -1 and +1.

    Raises:
        DataError: a column holds a value that it did not hold when the encoding was learnt.
    """
    if x.shape[1] != len(pairs):
        raise ShapeError(f"Rows have {x.shape[1]} columns, the encoding was learnt from {len(pairs)}.")
    out = np.empty(x.shape, np.int8)
    for begin in range(0, len(x), _ROWS):
        block = x[begin : begin + _ROWS]
        if encode == "median":
            up = block > pairs[:, 1]
        else:
            up = block == pairs[:, 1]
            known = up | (block == pairs[:, 0])
            if not known.all():
                row, column = (int(i) for i in np.argwhere(~known)[0])
                raise DataError(
                    f"Column {column} holds {block[row, column]!s}, but only {pairs[column, 0]:g} and "
                    f"{pairs[column, 1]:g} were seen when fitting; give values of these two only."
                )
        out[begin : begin + _ROWS] = np.where(up, 1, -1)
    return out


def _refusal(x: Array, column: int) -> DataError:
    return DataError(
        f"Column {column} has {len(np.unique(x[:, column]))} different values, two are allowed (any two are "
        "encoded as -1 and "
        "+1); drop it, make it binary, or pass encode='median', for which no guarantee holds."
    )
