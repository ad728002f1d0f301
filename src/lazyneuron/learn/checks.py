"""Checks of the numbers and arrays that entry points are given; what they return is what is computed with."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from lazyneuron.core.errors import ConfigError, DataError, ShapeError
from lazyneuron.core.numbers import real, whole
from lazyneuron.ops.array import Array

MOST = 10**300  # counts beyond have no product with a float
_POINTS_BYTES = 2**34


def finite_array(values: object, name: str, *, ndim: int) -> Array:
    """The values as a float64 array with as many axes as named, all finite.

    Raises:
        ShapeError: the number of axes differs.
        DataError: the values are not numbers, or one is NaN or infinite.
    """
    try:
        given = np.asarray(values)
        if given.dtype.kind in "USc":
            raise TypeError(f"got {'complex numbers' if given.dtype.kind == 'c' else 'text'}")
        array = np.asarray(given, dtype=np.float64)
    except (TypeError, ValueError, OverflowError, RuntimeError) as error:
        raise DataError(f"{name} must hold numbers ({error}); convert it first.") from error
    if array.ndim != ndim:
        raise ShapeError(f"{name} has {array.ndim} axes, {ndim} are needed; reshape it.")
    if not np.isfinite(array).all():
        raise DataError(f"{name} holds NaN or infinity; remove or replace these values.")
    return array


def count(value: Any, name: str, *, least: int = 1, most: int = MOST) -> int:
    """How many of something, as an ``int``: whole, and not so many that floats end.

    Raises:
        ConfigError: it is not whole, below ``least`` or above ``most``.
    """
    if most < MOST:
        return whole(value, name, least=least, most=most)
    return whole(whole(value, name, least=least), name, most=most)


def positive(value: Any, name: str) -> float:
    """The value, if it is finite and above 0.

    Raises:
        ConfigError: it is not.
    """
    return real(value, name, above=0)


def at_least(value: Any, least: float, name: str) -> float:
    """The value, if it is finite and not below ``least``.

    Raises:
        ConfigError: it is not.
    """
    return real(value, name, least=least)


def probability(value: Any, name: str) -> float:
    """The value, if it lies strictly between 0 and 1.

    Raises:
        ConfigError: it does not.
    """
    found = real(value, name)
    if not 0 < found < 1:
        raise ConfigError(f"{name} lies strictly between 0 and 1, got {found}.")
    return found


def share(value: Any, name: str) -> float:
    """The value, if it lies in [0, 1].

    Raises:
        ConfigError: it does not.
    """
    found = real(value, name)
    if not 0 <= found <= 1:
        raise ConfigError(f"{name} lies in [0, 1], got {found}.")
    return found


def correlation(value: Any, *, noise: bool = False) -> float:
    """The value, if it lies in [-1, 1]; with ``noise`` in [0, 1).

    Raises:
        ConfigError: it does not.
    """
    found = real(value, "A correlation")
    if noise and not 0 <= found < 1:
        raise ConfigError(f"A correlation that takes weight from high degrees lies in [0, 1), got {found}.")
    if not -1 <= found <= 1:
        raise ConfigError(f"A correlation lies in [-1, 1], got {found}.")
    return found


def generator_of(seed: Any) -> np.random.Generator:
    """A generator from a seed, or the one that was given.

    Raises:
        ConfigError: it is neither.
    """
    if isinstance(seed, np.random.Generator):
        return seed
    return np.random.default_rng(whole(seed, "A seed", least=0))


def upper(formula: Callable[[], float]) -> float:
    """The value of an upper bound; infinite, which is still one, where a number on the way is too large for a float."""
    try:
        value = formula()
        return math.inf if math.isnan(value) else value
    except (OverflowError, ZeroDivisionError):
        return math.inf


def whole_above(value: float) -> float:
    """The next whole number as an ``int``, or infinity."""
    return math.ceil(value) if value < math.inf else math.inf


def check_memory(needed_bytes: float, what: str, alternative: str, *, limit_bytes: float) -> None:
    """Refuse what would not fit.

    Raises:
        ConfigError: it would not; the sentence holds the estimate and the alternative.
    """
    if needed_bytes > limit_bytes:
        raise ConfigError(
            f"{what} would take {needed_bytes / 2**30:.3g} GiB, allowed are {limit_bytes / 2**30:.3g} GiB; "
            f"{alternative}."
        )


def check_points(samples: int, n: int) -> None:
    """Refuse more points of the cube than fit into memory at once, a byte for each bit.

    Raises:
        ConfigError: they are too many.
    """
    what = f"Points of {n} bits" if n < 10**18 else "Points of so many bits"
    check_memory(upper(lambda: float(samples * n)), what, "take fewer samples", limit_bytes=_POINTS_BYTES)
