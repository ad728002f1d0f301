"""The most central of several fits: confidence that grows with the number of batches, without validation data."""

from __future__ import annotations

import numpy as np

from lazyneuron.core.errors import DataError
from lazyneuron.learn.solvers.least_squares import least_squares
from lazyneuron.ops.boolean.array import Array
from lazyneuron.ops.boolean.design import WalshDesign


def central_fit(fits: Array) -> int:
    """Which fit has the smallest ball around it that holds more than half of all fits.

    Args:
        fits: coefficients, shape (L, N).

    Returns:
        Its row.

    Raises:
        DataError: there is no fit.

    Source: ours, D6 (d).
    """
    if not len(fits):
        raise DataError("There must be at least one fit to choose from, got none.")
    from scipy.spatial.distance import cdist

    distance = cdist(fits, fits)  # directly: products would cancel where fits are close and large
    return int(np.sort(distance, axis=1)[:, len(fits) // 2].argmin())


def batched_least_squares(x: Array, y: Array, *, degree: int, batches: int) -> Array:
    """Least squares on disjoint batches, and the most central of the fits, shape (N,).

    Raises:
        DataError: a batch has fewer rows than features.

    Source: ours, D6 (d); :func:`batches_for` says how many batches of how many rows.
    """
    rows = len(x) // batches
    fits = []
    for b in range(batches):
        part = slice(b * rows, (b + 1) * rows)
        found = least_squares(WalshDesign(x[part], degree), y[part]).coefficients
        assert found is not None
        fits.append(found)
    stacked = np.stack(fits)
    return np.asarray(stacked[central_fit(stacked)])
