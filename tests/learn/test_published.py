"""The same answers as a published package for the analysis of Boolean functions, boofun."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from lazyneuron.learn import average_sensitivity, influences, noise_sensitivity, spectrum, weight_by_degree
from lazyneuron.learn.estimators import LowDegreeRegressor
from lazyneuron.ops.boolean.subsets import as_tuples, subset_table

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # it asks for numba
    import boofun
    from boofun.analysis import SpectralAnalyzer
    from boofun.analysis.pac_learning import pac_learn_low_degree, sample_function


@pytest.mark.parametrize("n", [3, 7, 11])
def test_spectrum_influences_and_noise(n: int) -> None:
    table = np.random.default_rng(n).integers(0, 2, 1 << n)  # entry x: the value at the bits of x
    theirs = SpectralAnalyzer(boofun.create(table.tolist()))
    ours = spectrum(1.0 - 2.0 * table)
    weights = weight_by_degree(ours)
    np.testing.assert_allclose(ours, theirs.fourier_expansion(), atol=1e-14)
    np.testing.assert_allclose(influences(ours), theirs.influences(), atol=1e-13)
    assert average_sensitivity(weights) == pytest.approx(theirs.total_influence(), abs=1e-12)
    for rho in (-0.5, 0.3, 0.9):  # for values of +-1, E f(x) f(y) = 1 - 2 NS
        assert 1 - 2 * noise_sensitivity(weights, rho) == pytest.approx(theirs.noise_stability(rho), abs=1e-12)


def test_averaging_over_the_same_samples() -> None:
    n, degree, epsilon = 6, 2, 0.4
    function = boofun.create(np.random.default_rng(0).integers(0, 2, 1 << n).tolist())
    theirs = pac_learn_low_degree(function, degree, epsilon, rng=np.random.default_rng(1))
    subsets = list(as_tuples(subset_table(n, degree)))
    needed = int(4 * len(subsets) / epsilon**2 * np.log(2 * len(subsets) / 0.05))
    points, labels = zip(*sample_function(function, needed, np.random.default_rng(1)), strict=True)
    x = 1 - 2 * ((np.array(points)[:, None] >> np.arange(n)) & 1)
    ours = LowDegreeRegressor(degree, solver="lmn", center=False).fit(x, 1 - 2 * np.array(labels)).coef_
    found = {sum(1 << int(i) for i in s): c for s, c in zip(subsets, ours, strict=True)}
    assert len(theirs) > 3
    for mask, coefficient in theirs.items():
        assert found[mask] == pytest.approx(coefficient, abs=1e-12)
