"""Kernel ridge regression with the Krawtchouk kernel: the number of features does not matter."""

from __future__ import annotations

import numpy as np

from lazyneuron.learn.array import Array
from lazyneuron.learn.krawtchouk import walsh_kernel
from lazyneuron.learn.native import Impl
from lazyneuron.learn.solvers.solution import Solution

_GRID = 25


def kernel_ridge(x: Array, y: Array, *, degree: int, alpha: float | None, impl: Impl = "auto") -> Solution:
    """Ridge regression on all Walsh features of a degree, constant not penalised, by its dual.

    Args:
        x: rows of +-1, shape (m, n).
        y: labels.
        degree: d.
        alpha: penalty; 0 gives the interpolant of least norm, None the best of a grid by leave-one-out.
        impl: of the kernel.

    Cost: ``m^2 n / 64`` popcounts, ``8 m^2`` bytes, and the eigenvectors of an (m, m) matrix.
    """
    from scipy.linalg import eigh

    m, mean = len(x), float(y.mean())
    kernel = walsh_kernel(x, x, degree=degree, impl=impl)
    rows = kernel.mean(axis=0)
    kernel -= rows
    kernel -= rows[:, None] - rows.mean()
    values, vectors = eigh(kernel, overwrite_a=True, check_finite=False)
    target = vectors.T @ (y - mean)
    # centring makes the constant vector an eigenvector of value 0; what else is 0 stays out of the least-norm solution
    positive = values > 1e-10 * max(values[-1], 1e-300)
    if alpha is None:
        alpha = _leave_one_out(values, vectors, target, positive)
    inverse = np.where(positive, 1 / np.where(positive, values + alpha, 1), 0)
    dual = vectors @ (inverse * target)
    dual -= dual.mean()
    constant = mean - float(rows @ dual)
    return Solution(
        coefficients=None,
        gram_min_eigenvalue=None,
        method=f"kernel ridge on {m} rows, penalty {alpha:.3g}",
        dual=dual,
        constant=constant,
    )


def _leave_one_out(values: Array, vectors: Array, target: Array, positive: Array) -> float:
    """The penalty with the least leave-one-out error, of a grid over the range of the eigenvalues."""
    low, high = max(float(values[positive].min(initial=1.0)), 1e-8), max(float(values[-1]), 1e-6)
    best, chosen = np.inf, high
    m = len(values)
    for alpha in np.geomspace(low * 1e-3, high * 10, _GRID):
        shrink = np.where(positive, alpha / (values + alpha), 1.0)
        residual = vectors @ (shrink * target)
        # the hat matrix has, besides, the constant: 1/m on its diagonal
        left = (vectors**2) @ shrink - 1 / m
        error = float(np.mean((residual / np.maximum(left, 1e-12)) ** 2))
        if error < best:
            best, chosen = error, float(alpha)
    return chosen
