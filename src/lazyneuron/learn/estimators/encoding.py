"""Columns with two values, numbers or words, become -1 and +1.

Anything else is refused, or cut at the median when that is asked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

import numpy as np
from sklearn.utils.validation import validate_data

from lazyneuron.core.arguments import check_choice
from lazyneuron.core.errors import DataError, ShapeError
from lazyneuron.ops.array import Array

Encode = Literal["auto", "median"]
Words = Mapping[int, tuple[str, ...]]  # place of a column -> its words in alphabetical order
_ROWS = 1 << 16


def read_rows(estimator: Any, X: Any, *labels: Any, reset: bool = True, **checks: Any) -> Any:
    """What scikit-learn's ``validate_data`` returns, with the words of each column as 0 and 1.

    Args:
        estimator: it is given ``words_`` when ``reset`` is true, and asked for it otherwise.
        X: rows.
        labels: y, if there are labels.
        reset: whether the estimator learns about the columns, or holds them against what it learnt.
        checks: options of ``validate_data``.

    Raises:
        DataError: a column of words has a missing value, more than two different words, or one that was not seen.
    """
    names = None if reset else getattr(estimator, "feature_names_in_", None)
    if names is not None and hasattr(X, "columns") and list(X.columns) != list(names):
        return validate_data(estimator, X, *labels, reset=reset, **checks)  # it says which names do not match
    if isinstance(X, list) and any(isinstance(value, str) for row in X[:1] for value in row):
        X = np.array(X, dtype=object)
    X, words = _as_numbers(X, None if reset else estimator.words_)
    found = validate_data(estimator, X, *labels, reset=reset, **checks)
    if reset:
        estimator.words_ = words
    return found


def encoded_rows(estimator: Any, X: Any) -> Array:
    """Rows as int8 -1 and +1, in the encoding that a fitted estimator learnt.

    Raises:
        DataError: a column holds a value that was not seen when fitting.
    """
    return apply_encoding(read_rows(estimator, X, reset=False), estimator.pairs_, estimator.encode)


def _as_numbers(X: Any, known: Words | None) -> tuple[Any, Words]:
    columns = list(_word_columns(X))
    if not columns:
        return X, {}
    words = {place: _two_words(name, values) for place, name, values in columns} if known is None else known
    table: Any = X.copy() if hasattr(X, "iloc") else np.array(X, dtype=object)
    for place, name, values in columns:
        numbers = _numbers(name, values, words.get(place, ()))
        if hasattr(table, "iloc"):
            table.isetitem(place, numbers)
        else:
            table[:, place] = numbers
    return table, words


def _word_columns(X: Any) -> Iterator[tuple[int, str, Array]]:
    """Place, name and values of the columns that hold words."""
    if hasattr(X, "iloc") and hasattr(X, "columns"):
        for place, (name, dtype) in enumerate(zip(X.columns, X.dtypes, strict=True)):
            if dtype.kind in "OUT":
                yield from _if_words(place, f"Column {name!r}", X.iloc[:, place].to_numpy(dtype=object))
    elif getattr(X, "dtype", None) is not None and X.dtype.kind in "OU" and X.ndim == 2:
        for place in range(X.shape[1]):
            yield from _if_words(place, f"Column {place}", X[:, place])


def _if_words(place: int, name: str, values: Array) -> Iterator[tuple[int, str, Array]]:
    are = [isinstance(value, str) for value in values]
    if any(are) and not all(are):
        other = values[are.index(False)]
        raise DataError(f"{name} holds words, and {other!r} besides; replace what is missing or drop the column.")
    if are and are[0]:
        yield place, name, values


def _two_words(name: str, values: Array) -> tuple[str, ...]:
    found = sorted(set(values.tolist()))
    if len(found) > 2:
        raise DataError(
            f"{name} has {len(found)} different words, two are allowed; drop it, or make a column for each word."
        )
    return tuple(found)


def _numbers(name: str, values: Array, words: tuple[str, ...]) -> Array:
    place = {word: float(number) for number, word in enumerate(words)}
    unknown = next((value for value in values if value not in place), None)
    if unknown is not None:
        seen = " and ".join(map(repr, words)) or "numbers"
        raise DataError(f"{name} holds {unknown!r}, but only {seen} were seen when fitting.")
    return np.array([place[value] for value in values])


def learn_encoding(x: Array, encode: Encode) -> Array:
    """The two values of each column, (low, high), shape (n, 2); for ``"median"`` the median twice.

    Columns of -1 and 1, or of 0 and 1 everywhere, keep their meaning even where a column holds only one of the two.

    Raises:
        ConfigError: the name is unknown.
        DataError: a column has more than two values.
    """
    check_choice("encode", encode, ("auto", "median"))
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
        "encoded as -1 and +1); drop it, make it binary, or pass encode='median', for which no guarantee holds."
    )
