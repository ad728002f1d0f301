"""Checks of the numbers and arrays that entry points are given."""

from __future__ import annotations

import math

import numpy as np

from lazyneuron.core.errors import ConfigError, DataError, ShapeError
from lazyneuron.ops.array import Array


def finite_array(values: object, name: str, *, ndim: int) -> Array:
    """The values as a float64 array with as many axes as named, all finite.

    Raises:
        ShapeError: the number of axes differs.
        DataError: the values are not numbers, or one is NaN or infinite.
    """
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(f"{name} must hold numbers ({error}); convert it first.") from error
    if array.ndim != ndim:
        raise ShapeError(f"{name} has {array.ndim} axes, {ndim} are needed; reshape it.")
    if not np.isfinite(array).all():
        raise DataError(f"{name} holds NaN or infinity; remove or replace these values.")
    return array


def positive(value: float, name: str) -> float:
    """The value, if it is finite and above 0.

    Raises:
        ConfigError: it is not.
    """
    if not (math.isfinite(value) and value > 0):
        raise ConfigError(f"{name} is a finite number above 0, got {value}.")
    return value


def at_least(value: float, least: float, name: str) -> float:
    """The value, if it is finite and not below ``least``.

    Raises:
        ConfigError: it is not.
    """
    if not (math.isfinite(value) and value >= least):
        raise ConfigError(f"{name} is a finite number of at least {least:g}, got {value}.")
    return value


def probability(value: float, name: str) -> float:
    """The value, if it lies strictly between 0 and 1.

    Raises:
        ConfigError: it does not.
    """
    if not 0 < value < 1:
        raise ConfigError(f"{name} lies strictly between 0 and 1, got {value}.")
    return value


def correlation(value: float) -> float:
    """The value, if it lies in [-1, 1].

    Raises:
        ConfigError: it does not.
    """
    if not -1 <= value <= 1:
        raise ConfigError(f"A correlation lies in [-1, 1], got {value}.")
    return value


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
