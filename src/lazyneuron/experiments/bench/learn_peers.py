"""Low-degree learning beside scikit-learn's regression and boofun's analysis, and what its cases share."""

from __future__ import annotations

import functools
import importlib.util
import resource
import statistics
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from importlib import metadata
from typing import Any

import numpy as np
import numpy.typing as npt

from lazyneuron.core.processes import CONTEXT
from lazyneuron.core.timing import repeated
from lazyneuron.experiments.bench.correct import refuse_wrong
from lazyneuron.experiments.experiment import SEED

Row = dict[str, Any]


def timed_s(call: Callable[[], object], *, repeats: int) -> list[float]:
    """Seconds of each of several calls."""
    return [sample_us / 1e6 for sample_us in repeated(call, rounds=repeats).samples_us]


def peak_gib() -> float:
    """The most memory that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def rows_of(m: int, n: int) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float64]]:
    """Uniform rows and a noisy polynomial of degree 2 in a few columns."""
    from lazyneuron.learn.cube import random_points

    generator = np.random.default_rng(SEED)
    x = random_points(m, n, seed=generator)
    y = 1.0 + x[:, 0] * x[:, 1] - 0.5 * x[:, 2] + generator.standard_normal(m)
    return x, y


def apart(case: functools.partial[Row]) -> Row:
    """A case in a process of its own."""
    with ProcessPoolExecutor(1, mp_context=CONTEXT) as pool:
        return pool.submit(case).result()


def theirs(n: int, degree: int, m: int) -> Row:
    """scikit-learn's features and ridge, on the same rows as :func:`ours`."""
    from sklearn.linear_model import Ridge
    from sklearn.preprocessing import PolynomialFeatures

    x, y = rows_of(m, n)
    features = PolynomialFeatures(degree, interaction_only=True, include_bias=False)
    model = Ridge(1.0, solver="cholesky", copy_X=False)
    (took,) = timed_s(lambda: model.fit(features.fit_transform(x.astype(np.float64)), y), repeats=1)
    from lazyneuron.ops.boolean.subsets import rank

    order = [rank(np.flatnonzero(row).tolist(), n) for row in features.powers_]
    found = np.zeros(len(order) + 1)
    found[order], found[0] = model.coef_, model.intercept_
    return {
        "case": f"scikit-learn, n = {n}, degree {degree}, {m} rows",
        "seconds": took,
        "peak GiB": peak_gib(),
        "coefficients": found.tolist(),
    }


def ours(n: int, degree: int, m: int) -> Row:
    """The same ridge regression by :class:`LowDegreeRegressor`."""
    from lazyneuron.learn.estimators import LowDegreeRegressor

    x, y = rows_of(m, n)
    model = LowDegreeRegressor(degree, solver="ridge", alpha=1.0)
    (took,) = timed_s(lambda: model.fit(x, y), repeats=1)
    assert model.coef_ is not None
    return {
        "case": f"ours, n = {n}, degree {degree}, {m} rows",
        "seconds": took,
        "peak GiB": peak_gib(),
        "coefficients": model.coef_.tolist(),
    }


def against(n: int, degree: int, m: int) -> Row:
    """Ours beside scikit-learn's."""
    a, b = (apart(functools.partial(fit, n, degree, m)) for fit in (ours, theirs))
    off = float(np.abs(np.array(a["coefficients"]) - np.array(b["coefficients"])).max())
    return {
        "case": f"ridge, n = {n}, degree {degree}, {m} rows, against PolynomialFeatures + Ridge",
        "seconds": a["seconds"],
        "peak GiB": a["peak GiB"],
        "theirs, seconds": b["seconds"],
        "theirs, peak GiB": b["peak GiB"],
        "faster": b["seconds"] / a["seconds"],
        "less memory": b["peak GiB"] / a["peak GiB"],
        "note": f"coefficients differ by at most {off:.1e}; memory counts torch and scikit-learn themselves",
    }


def published(n: int) -> Row:
    """The whole analysis of a Boolean function by ours and by boofun: spectrum, influences, noise stability."""
    import boofun
    from boofun.analysis import SpectralAnalyzer

    from lazyneuron.learn import influences, noise_sensitivity, spectrum, weight_by_degree

    table = np.random.default_rng(SEED).integers(0, 2, 1 << n)
    function = boofun.create(table.tolist())

    def by_ours() -> list[npt.NDArray[np.float64]]:
        found = spectrum(1.0 - 2.0 * table)
        return [found, influences(found), np.array(1 - 2 * noise_sensitivity(weight_by_degree(found), 0.9))]

    def by_theirs() -> list[npt.NDArray[np.float64]]:
        analyzer = SpectralAnalyzer(function)
        return [analyzer.fourier_expansion(), analyzer.influences(), np.array(analyzer.noise_stability(0.9))]

    off = max(float(np.abs(a - b).max()) for a, b in zip(by_ours(), by_theirs(), strict=True))
    refuse_wrong("The analysis", off < 1e-9)
    mine, other = [], []
    for _ in range(3):
        mine += timed_s(by_ours, repeats=1)
        other += timed_s(by_theirs, repeats=1)
    helped = "with" if importlib.util.find_spec("numba") else "without"
    return {
        "case": f"spectrum, influences and noise stability, n = {n}, against boofun",
        "seconds": statistics.median(mine),
        "theirs, seconds": statistics.median(other),
        "faster": statistics.median(other) / statistics.median(mine),
        "samples": mine,
        "note": f"largest difference {off:.1e}; boofun {metadata.version('boofun')} {helped} numba",
    }
