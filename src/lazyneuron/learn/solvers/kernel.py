"""Kernel ridge regression with the Krawtchouk kernel: the number of features does not matter."""

from __future__ import annotations

import numpy as np

from lazyneuron.learn.krawtchouk import walsh_kernel
from lazyneuron.learn.solvers.solution import Solution
from lazyneuron.ops.array import Array
from lazyneuron.ops.boolean.operators import Impl
from lazyneuron.ops.boolean.reference import columns
from lazyneuron.ops.boolean.subsets import count_subsets

_GRID = 25


def kernel_ridge(x: Array, y: Array, *, degree: int, alpha: float | None, impl: Impl = "auto") -> Solution:
    """Ridge regression on all Walsh features of a degree, constant not penalised, by its dual.

    Args:
        x: rows of +-1, shape (m, n).
        y: labels.
        degree: d.
        alpha: penalty; 0 gives the interpolant of least norm, None the best of a grid by leave-one-out.
        impl: of the kernel.

    Cost: ``m^2 n / 64`` popcounts, ``8 m^2`` bytes, and the eigenvectors of an (m, m) matrix; with fewer features N
        than rows, ``8 m N`` bytes and those of an (N, N) matrix.
    """
    m, mean = len(x), float(y.mean())
    few = count_subsets(x.shape[1], degree) < m
    values, vectors, rows = _by_features(x, degree) if few else _by_kernel(x, degree, impl)
    centred = y - mean
    target = vectors.T @ centred
    if alpha is None:
        alpha = _leave_one_out(values, vectors, target, centred)
    dual = vectors @ (target / (values + alpha))
    dual -= dual.mean()
    constant = mean - float(rows @ dual)
    return Solution(
        coefficients=None,
        gram=None,
        method=f"kernel ridge on {m} rows, penalty {alpha:.3g}",
        dual=dual,
        constant=constant,
    )


def _by_kernel(x: Array, degree: int, impl: Impl) -> tuple[Array, Array, Array]:
    """The centred kernel's eigenvalues above 0 and their vectors (m, count), and the mean of the kernel's rows."""
    from scipy.linalg import eigh

    kernel = walsh_kernel(x, x, degree=degree, impl=impl)
    rows = kernel.mean(axis=0)
    kernel -= rows
    kernel -= rows[:, None] - rows.mean()
    values, vectors = eigh(kernel, overwrite_a=True, check_finite=False)
    # centring makes the constant vector an eigenvector of value 0; what else is 0 stays out of the least-norm solution
    positive = _positive(values)
    return values[positive], vectors[:, positive], rows


def _by_features(x: Array, degree: int) -> tuple[Array, Array, Array]:
    """The same from the features, whose product the kernel is."""
    from scipy.linalg import eigh

    features = columns(x, degree)
    mean = features.mean(axis=0)
    rows = features @ mean
    features -= mean
    values, turn = eigh(features.T @ features, overwrite_a=True, check_finite=False)
    positive = _positive(values)
    return values[positive], features @ (turn[:, positive] / np.sqrt(values[positive])), rows


def _positive(values: Array) -> Array:
    return np.asarray(values > 1e-10 * max(values[-1], 1e-300))


def _leave_one_out(values: Array, vectors: Array, target: Array, centred: Array) -> float:
    """The penalty with the least leave-one-out error, of a grid over the range of the eigenvalues."""
    low, high = max(float(values.min(initial=1.0)), 1e-8), max(float(values.max(initial=0.0)), 1e-6)
    best, chosen = np.inf, high
    squares = vectors**2
    for alpha in np.geomspace(low * 1e-3, high * 10, _GRID):
        kept = values / (values + alpha)
        residual = centred - vectors @ (kept * target)
        # the hat matrix has, besides, the constant: 1/m on its diagonal
        left = 1 - squares @ kept - 1 / len(centred)
        error = float(np.mean((residual / np.maximum(left, 1e-12)) ** 2))
        if error < best:
            best, chosen = error, float(alpha)
    return chosen
