"""Averaging (the low-degree algorithm), and averaging with a threshold."""

from __future__ import annotations

import math

import numpy as np

from lazyneuron.learn.solvers.solution import Solution
from lazyneuron.ops.array import Array
from lazyneuron.ops.boolean.design import WalshDesign


def average(design: WalshDesign, y: Array, *, center: bool) -> Solution:
    """Coefficient T is the mean of ``y chi_T(x)``; with ``center`` of the centred labels, and the constant is the mean.

    Source: Linial, Mansour, Nisan (1993).
    """
    mean = float(y.mean()) if center else 0.0
    found = design.analysis(y - mean) / design.m
    found[0] += mean
    return Solution(coefficients=found, gram=None, method="averaging")


def thresholded(design: WalshDesign, y: Array, *, alpha: float | None) -> Solution:
    """Averaging, then only coefficients above ``alpha`` are kept, and these are fitted anew by least squares.

    Args:
        design: the features.
        y: labels.
        alpha: the threshold; ``sd(y) sqrt(2 ln N / m)`` by default.

    Source: Eskenazis, Ivanisvili (2022) for the threshold; the second fit is ours.
    """
    averages = average(design, y, center=True).coefficients
    assert averages is not None
    cut = noise_level(design, y) if alpha is None else alpha
    kept = np.flatnonzero(np.abs(averages) > cut)
    kept = kept[np.argsort(-np.abs(averages[kept]))][: max(design.m // 2 - 1, 0)]
    kept = np.union1d(kept, [0])
    found = np.zeros(design.size)
    found[kept] = np.linalg.lstsq(chosen_columns(design, kept), y, rcond=None)[0]
    return Solution(coefficients=found, gram=None, method=f"averaging above {cut:.3g}, {len(kept)} kept, fitted anew")


def noise_level(design: WalshDesign, y: Array) -> float:
    """What the largest of N averages of pure noise reaches, ``sd(y) sqrt(2 ln N / m)``."""
    return float(y.std()) * math.sqrt(2 * math.log(max(design.size, 2)) / design.m)


def chosen_columns(design: WalshDesign, kept: Array) -> Array:
    """The features of these places, written out, shape (m, count)."""
    out = np.ones((design.m, len(kept)))
    for at, place in enumerate(kept):
        for t in design.subsets[place]:
            if t >= 0:
                out[:, at] *= design.x[:, t]
    return out
