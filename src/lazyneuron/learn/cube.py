"""Points of the cube {-1, +1}^n. Point number i has x_j = -1 exactly where bit j of i is set."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from lazyneuron.core.errors import ConfigError
from lazyneuron.learn.checks import generator_of
from lazyneuron.ops.array import Array

MOST_ENUMERATED = 24  # 2^24 numbers are 128 MiB; beyond that ask by queries


def points(n: int, begin: int = 0, end: int | None = None) -> Array:
    """Points number ``begin`` to ``end`` (all by default) as int8 of shape (count, n)."""
    index = np.arange(begin, 1 << n if end is None else end, dtype=np.int64)
    return (1 - 2 * (index[:, None] >> np.arange(n) & 1)).astype(np.int8)


def blocks(n: int, *, rows: int) -> Iterator[tuple[int, Array]]:
    """The whole cube in blocks of at most ``rows`` points, each with the number of its first point."""
    total = 1 << n
    for begin in range(0, total, rows):
        yield begin, points(n, begin, min(total, begin + rows))


def random_points(count: int, n: int, *, seed: int | np.random.Generator) -> Array:
    """Uniform points as int8 of shape (count, n)."""
    generator = generator_of(seed)
    return (1 - 2 * generator.integers(0, 2, (count, n), dtype=np.int8)).astype(np.int8)


def random_neighbours(count: int, n: int, *, generator: np.random.Generator) -> tuple[Array, Array]:
    """Uniform points, and the same with one random bit of each flipped, int8 of shape (count, n) both."""
    x = random_points(count, n, seed=generator)
    flipped = x.copy()
    flipped[np.arange(count), generator.integers(0, n, count)] *= -1
    return x, flipped


def check_enumerable(n: int, most: int = MOST_ENUMERATED) -> None:
    """Refuse what cannot be enumerated.

    Raises:
        ConfigError: 2^n points are too many.
    """
    if n > most:
        raise ConfigError(
            f"Enumerating the cube takes 2^{n:.9g} points, at most "
            f"n = {most} is enumerated; estimate by queries or from samples instead."
        )
