"""Subsets of coordinates in graded colexicographic order: by size, then by largest element, then by the next, ..."""

from __future__ import annotations

import math
import numbers
from collections.abc import Iterator, Sequence

import numpy as np

from lazyneuron.core.arguments import described
from lazyneuron.core.errors import ConfigError
from lazyneuron.ops.array import Array


def count_subsets(n: int, degree: int) -> int:
    """Number of subsets of n coordinates with at most ``degree`` elements, ``N_d``.

    Raises:
        ConfigError: the degree lies outside 0 to n.
    """
    check_degree(n, degree)
    return sum(math.comb(n, k) for k in range(degree + 1))


def check_degree(n: int, degree: int) -> int:
    """The degree, if polynomials of this degree exist in n coordinates.

    Raises:
        ConfigError: the degree is no whole number from 0 to n.
    """
    is_number = isinstance(degree, numbers.Real) and not isinstance(degree, bool)
    if not is_number or not 0 <= degree <= n or int(degree) != degree:
        raise ConfigError(f"A degree is a whole number from 0 to the number of columns, {n}, got {described(degree)}.")
    return int(degree)


def subset_table(n: int, degree: int) -> Array:
    """All subsets of at most ``degree`` elements.

    Returns:
        int16 of shape (N_d, max(degree, 1)): the elements of each in increasing order, then -1.
    """
    check_degree(n, degree)
    parts = [np.full((1, max(degree, 1)), -1, np.int16)]
    previous = np.empty((1, 0), np.int16)
    for size in range(1, degree + 1):
        # colex: the subsets with largest element t are all subsets of size - 1 below t, in order
        rows = [previous[: math.comb(t, size - 1)] for t in range(size - 1, n)]
        largest = np.repeat(np.arange(size - 1, n, dtype=np.int16), [len(r) for r in rows])
        previous = np.column_stack([np.concatenate(rows), largest]) if rows else np.empty((0, size), np.int16)
        part = np.full((len(previous), max(degree, 1)), -1, np.int16)
        part[:, :size] = previous
        parts.append(part)
    return np.concatenate(parts)


def rank(subset: Sequence[int], n: int) -> int:
    """Place of a subset in the order; the empty one is 0."""
    ordered = sorted(subset)
    below = sum(math.comb(n, k) for k in range(len(ordered)))
    return below + sum(math.comb(t, k + 1) for k, t in enumerate(ordered))


def sizes(n: int, degree: int) -> Array:
    """Number of elements of each subset in the order, shape (N_d,)."""
    return np.repeat(np.arange(degree + 1), [math.comb(n, k) for k in range(degree + 1)])


def as_tuples(table: Array) -> Iterator[tuple[int, ...]]:
    """The rows of :func:`subset_table` as tuples."""
    for row in table:
        yield tuple(int(t) for t in row if t >= 0)
