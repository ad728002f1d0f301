"""Numbers that callers give: what they may be, as numbers of Python, and one sentence when they are something else."""

from __future__ import annotations

import math
import numbers
import sys
from fractions import Fraction
from typing import Any

from lazyneuron.core.arguments import described
from lazyneuron.core.errors import ConfigError

_LARGEST: Any = sys.float_info.max


def whole(value: Any, name: str, *, least: int | None = None, most: int | None = None) -> int:
    """A whole number as an ``int``, which does not overflow; numpy's integers are taken, bools and 2.0 are not.

    Args:
        value: what the caller gave.
        name: what it is, as a sentence begins: "The number of rows".
        least: below which it is refused.
        most: above which it is refused.

    Raises:
        ConfigError: it is none, or outside.
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise ConfigError(f"{name} is a whole number, got {described(value)}.")
    found = int(value)
    if (least is not None and found < least) or (most is not None and found > most):
        raise ConfigError(f"{name} is a whole number {_between(least, most)}, got {_short(found)}.")
    return found


def real(
    value: Any, name: str, *, least: float | None = None, above: float | None = None, most: float | None = None
) -> float:
    """A finite number as a ``float``; numpy's numbers are taken, bools are not.

    Args:
        value: what the caller gave.
        name: what it is, as a sentence begins: "The error".
        least: below which it is refused.
        above: at and below which it is refused.
        most: above which it is refused.

    Raises:
        ConfigError: it is none, or outside.
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise ConfigError(f"{name} is a number, got {described(value)}.")
    exact = isinstance(value, int | Fraction)  # of which isfinite, that makes them floats, may not get to speak
    finite = bool(abs(value) <= _LARGEST) if exact else math.isfinite(value)
    if not finite:
        raise ConfigError(f"{name} is a finite number, got {_short(value)}.")
    found = float(value)
    if not ((least is None or found >= least) and (above is None or found > above) and (most is None or found <= most)):
        raise ConfigError(f"{name} is a finite number {_between(least, most, above)}, got {found:g}.")
    return found


def _between(least: float | None, most: float | None, above: float | None = None) -> str:
    parts = [] if least is None else [f"of at least {least:g}" if most is None else f"from {least:g}"]
    parts += [] if above is None else [f"above {above:g}"]
    if most is not None:
        parts.append(
            f"of at most {most:g}" if not parts else f"to {most:g}" if least is not None else f"up to {most:g}"
        )
    return " ".join(parts)


def _short(value: Any) -> str:
    """A number in a few characters: whole ones may have thousands of digits."""
    if isinstance(value, Fraction):
        value = int(value)
    return f"about 2^{value.bit_length()}" if isinstance(value, int) and abs(value) > 10**18 else str(value)
