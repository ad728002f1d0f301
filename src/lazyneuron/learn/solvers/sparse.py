"""The lasso on Walsh features by accelerated proximal gradients, without a matrix."""

from __future__ import annotations

import numpy as np

from lazyneuron.core.errors import DataError
from lazyneuron.learn.solvers.averaging import noise_level
from lazyneuron.learn.solvers.lanczos import largest_eigenvalue
from lazyneuron.learn.solvers.solution import Solution
from lazyneuron.ops.boolean.array import Array
from lazyneuron.ops.boolean.design import WalshDesign

_MOST_STEPS = 5000
_LANCZOS = 24


def lasso(design: WalshDesign, y: Array, *, alpha: float | None, tolerance: float = 1e-6) -> Solution:
    """Minimise ``|y - Phi c|^2 / (2 m) + alpha |c without the constant|_1``.

    Args:
        design: the features.
        y: labels.
        alpha: penalty; ``sd(y) sqrt(2 ln N / m)`` by default.
        tolerance: the duality gap to reach, relative to ``|y - mean|^2 / (2 m)``.

    Raises:
        DataError: the gap is not reached.

    Source: Beck, Teboulle (2009), with restarts after O'Donoghue, Candes (2015).
    """
    m, penalty = design.m, noise_level(design, y) if alpha is None else alpha
    mean = float(y.mean())
    centred = y - mean
    scale = float(centred @ centred) / (2 * m)
    step = 1 / largest_eigenvalue(design, steps=_LANCZOS)
    found = np.zeros(design.size)
    ahead, momentum = found.copy(), 1.0
    for number in range(_MOST_STEPS):
        residual = centred - design.synthesis(ahead)
        slope = design.analysis(residual) / m
        moved = ahead + step * slope
        new = np.sign(moved) * np.maximum(np.abs(moved) - step * penalty, 0)
        new[0] = moved[0]
        if number % 10 == 0 and _gap(design, centred, ahead, residual, slope, penalty) <= tolerance * scale:
            found = ahead
            break
        if (ahead - new) @ (new - found) > 0:
            ahead, momentum = new, 1.0
        else:
            later = (1 + np.sqrt(1 + 4 * momentum**2)) / 2
            ahead = new + (momentum - 1) / later * (new - found)
            momentum = later
        found = new
    else:
        raise DataError(
            f"The lasso did not converge in {_MOST_STEPS} steps; raise alpha ({penalty:.3g}) or the rows ({m})."
        )
    out = np.where(np.abs(found) < 1e-14, 0.0, found)
    out[0] += mean
    kept = int(np.count_nonzero(out[1:]))
    return Solution(coefficients=out, gram=None, method=f"lasso, penalty {penalty:.3g}, {kept} kept")


def _gap(design: WalshDesign, y: Array, c: Array, residual: Array, slope: Array, penalty: float) -> float:
    """Primal minus dual value at the best multiple of the residual (taken orthogonal to the constant)."""
    m = design.m
    flat = residual - residual.mean()
    shift = design.moments() * (residual.mean() / m)
    top = float(np.abs(slope - shift)[1:].max(initial=0.0))
    factor = min(1.0, penalty / top) if top > 0 else 1.0
    primal = float(residual @ residual) / (2 * m) + penalty * float(np.abs(c[1:]).sum())
    dual = (float(y @ y) - float((y - factor * flat) @ (y - factor * flat))) / (2 * m)
    return float(primal - dual)
