"""Sums of absolute values: of residuals (L1 regression), and of coefficients as a penalty (the lasso)."""

from __future__ import annotations

import numpy as np

from lazyneuron.core.errors import ConfigError, DataError
from lazyneuron.learn.solvers.averaging import noise_level
from lazyneuron.learn.solvers.lanczos import largest_eigenvalue
from lazyneuron.learn.solvers.solution import Solution
from lazyneuron.ops.array import Array
from lazyneuron.ops.boolean.design import WalshDesign
from lazyneuron.ops.boolean.reference import columns

_ENTRIES = 10_000_000  # of a linear program
_MOST_STEPS = 5000
_LANCZOS = 24


def absolute(design: WalshDesign, y: Array) -> Solution:
    """Minimise ``|y - Phi c|_1``, which adversarial labels move less than squares.

    Raises:
        ConfigError: the linear program is too large.
        DataError: it could not be solved.

    Source: Kalai, Klivans, Mansour, Servedio (2008).
    """
    from scipy.optimize import linprog
    from scipy.sparse import csr_array, hstack

    if design.m * design.size > _ENTRIES:
        raise ConfigError(
            f"L1 regression is a linear program with {design.m} x {design.size} entries, at most {_ENTRIES} are "
            "allowed; lower the degree, take fewer rows, or solver='ols'."
        )
    phi = columns(design.x, design.degree)
    m, size = phi.shape
    cost = np.concatenate([np.zeros(size), np.ones(2 * m)])
    identity = np.eye(m)
    bounds = [(None, None)] * size + [(0, None)] * (2 * m)
    equal = hstack([csr_array(phi), csr_array(identity), csr_array(-identity)])
    found = linprog(cost, A_eq=equal, b_eq=y, bounds=bounds, method="highs")
    if not found.success:
        raise DataError(f"L1 regression could not be solved ({found.message}); take solver='ols'.")
    return Solution(coefficients=np.asarray(found.x[:size]), gram=None, method="least absolute residuals")


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
