"""Ticks of logarithmic axes as plain numbers, where powers of ten would be too few or would have to be read twice."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axis import Axis

_DECADES = 2.0  # above, powers of ten are enough


def plain_ticks(axis: Axis, values: Sequence[float]) -> None:
    """Mark 1, 2 and 5 of each decade, or round numbers where fewer than three of them lie among the values.

    Args:
        axis: logarithmic.
        values: drawn along it, above 0; above two decades the axis stays as it is.
    """
    from matplotlib.ticker import MaxNLocator, NullLocator

    low, high = min(values), max(values)
    if high > 10**_DECADES * low:
        return
    exponents = range(-12, 13)
    ticks = [t * 10.0**e for e in exponents for t in (1, 2, 5) if low * 0.7 <= t * 10.0**e <= high * 1.4]
    if sum(low <= tick <= high for tick in ticks) < 2:
        ticks = [float(tick) for tick in MaxNLocator(5).tick_values(low, high) if tick > 0]
    axis.set_ticks(ticks, [f"{tick:g}" for tick in ticks])
    axis.set_minor_locator(NullLocator())
