"""How numbers are written in tables, pages and figures."""

from __future__ import annotations

import math
from typing import Any

NOTHING = "-"


def share(value: float | None) -> str:
    """A fraction in [0, 1] with three decimals; a rounded 0 or 1 is written as exact only when it is."""
    if value is None:
        return NOTHING
    text = f"{value:.3f}"
    if text == "1.000" and value < 1:
        return ">0.999"
    if text == "0.000" and value > 0:
        return "<0.001"
    return "1" if value == 1 else "0" if value == 0 else text


def significant(value: float | None, digits: int = 3) -> str:
    """A number with that many significant digits, without an exponent from 0.001 up to a million."""
    if value is None:
        return NOTHING
    if not math.isfinite(value):
        return str(value)
    if value == 0:
        return "0"
    if not 1e-3 <= abs(value) < 1e6:
        mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
        return f"{mantissa}e{int(exponent)}"
    # rounded first, so that 9.996 counts as having two digits before the point
    rounded = float(f"{value:.{digits - 1}e}")
    return f"{value:.{max(0, digits - 1 - math.floor(math.log10(abs(rounded))))}f}"


def ratio(value: float | None) -> str:
    """A factor, e.g. ``1.42x``."""
    return NOTHING if value is None else f"{significant(value)}x"


def mebibytes(count: int | None) -> str:
    """Bytes in MiB, with one decimal."""
    return NOTHING if count is None else f"{count / 2**20:.1f}"


def counted(number: int, one: str, many: str | None = None) -> str:
    """A number of things, e.g. ``2 batches``."""
    return f"{number} {one if number == 1 else many or one + 's'}"


def cell(value: Any) -> str:
    """Any JSON value as the text of a table cell."""
    if value is None:
        return NOTHING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return significant(value)
    if isinstance(value, list | tuple):
        return ", ".join(cell(v) for v in value)
    return str(value)
