"""Speed and memory of low-degree learning.

Every case runs in a process of its own, so that its peak memory is its own; times are medians of repetitions in that
process, or a single run where one takes seconds, and say which. All data are synthetic and uniform on the cube.
"""

from __future__ import annotations

import argparse
import functools
import importlib.util
import json
import resource
import statistics
import subprocess
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from lazyneuron.core.record import Record, write_text
from lazyneuron.core.timing import interleaved, repeated

SEED = 0
Row = dict[str, Any]


def timed(call: Callable[[], object], *, repeats: int) -> list[float]:
    return [sample_us / 1e6 for sample_us in repeated(call, rounds=repeats).samples_us]


def peak_gib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def rows_of(m: int, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Uniform rows and a noisy polynomial of degree 2 in a few columns."""
    from lazyneuron.learn.cube import random_points

    generator = np.random.default_rng(SEED)
    x = random_points(m, n, seed=generator)
    y = 1.0 + x[:, 0] * x[:, 1] - 0.5 * x[:, 2] + generator.standard_normal(m)
    return x, y


def transform(n: int, dtype: str) -> Row:
    """In place, against reading and writing the array once (its negation in place), which is the ceiling."""
    import torch

    from lazyneuron.learn import fwht

    x = np.random.default_rng(SEED).standard_normal(2**n).astype(dtype)
    copy = x.copy()
    fwht(copy, in_place=True)
    fwht(copy, in_place=True)
    off = float(np.abs(copy / 2**n - x).max())
    assert off < (1e-4 if dtype == "float32" else 1e-11), off
    calls = {"ceiling": torch.from_numpy(x).neg_, "ours": functools.partial(fwht, x, in_place=True)}

    def shrink(*_: float) -> None:
        np.multiply(x, 2.0 ** (-n // 2), out=x)  # keeps the numbers from growing

    runs = {name: lambda _, call=call: call() for name, call in calls.items()}
    times = interleaved(runs, [None], budget_s=0.0, least=9, most=9, on_round=shrink)
    middle, floor = (times[name].median_us / 1e6 for name in ("ours", "ceiling"))
    return {
        "case": f"transform in place, n = {n}, {dtype}",
        "seconds": middle,
        "ceiling": floor,
        "over the ceiling": middle / floor,
        "samples": [sample_us / 1e6 for sample_us in times["ours"].samples_us],
        "note": "ceiling: the array read and written once",
    }


def fit(n: int, degree: int, m: int, solver: str) -> Row:
    """One fit from int8 rows, data made before the clock starts."""
    from lazyneuron.learn.estimators import LowDegreeRegressor

    x, y = rows_of(m, n)
    before = peak_gib()
    model = LowDegreeRegressor(degree, solver=solver)
    took = timed(lambda: model.fit(x, y), repeats=1)
    error = float(np.abs(model.coef_[[0, 3]] - [1.0, -0.5]).max())
    assert error < 0.1, error
    return {
        "case": f"fit {solver}, n = {n}, degree {degree}, {m} rows, {len(model.coef_)} features",
        "seconds": took[0],
        "peak GiB": peak_gib(),
        "samples": took,
        "note": f"{model.method_}; {before:.2f} GiB before the fit, with the data",
    }


def pairs(m: int, n: int) -> Row:
    """The spectrum from all pairs."""
    from lazyneuron.learn import degree_weights_from_samples

    x, y = rows_of(m, n)
    took = timed(lambda: degree_weights_from_samples(x, y, max_degree=4), repeats=3)
    return {
        "case": f"spectrum of all pairs, n = {n}, {m} rows",
        "seconds": statistics.median(took),
        "peak GiB": peak_gib(),
        "samples": took,
        "note": "median of 3",
    }


def theirs(n: int, degree: int, m: int) -> Row:
    """scikit-learn's features and ridge, on the same rows as :func:`ours`."""
    from sklearn.linear_model import Ridge
    from sklearn.preprocessing import PolynomialFeatures

    x, y = rows_of(m, n)
    features = PolynomialFeatures(degree, interaction_only=True, include_bias=False)
    model = Ridge(1.0, solver="cholesky", copy_X=False)
    (took,) = timed(lambda: model.fit(features.fit_transform(x.astype(np.float64)), y), repeats=1)
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
    (took,) = timed(lambda: model.fit(x, y), repeats=1)
    return {
        "case": f"ours, n = {n}, degree {degree}, {m} rows",
        "seconds": took,
        "peak GiB": peak_gib(),
        "coefficients": model.coef_.tolist(),
    }


def apart(call: str) -> Row:
    """A case in a process of its own."""
    command = [sys.executable, "-m", "lazyneuron.experiments.benchmarks.learn", "--one", call]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        return {"case": call, "note": f"failed: {done.stderr.strip().splitlines()[-1]}"}
    return dict(json.loads(done.stdout))


def against(n: int, degree: int, m: int) -> Row:
    """Ours beside scikit-learn's."""
    a, b = apart(f"ours({n}, {degree}, {m})"), apart(f"theirs({n}, {degree}, {m})")
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

    def by_ours() -> list[np.ndarray]:
        found = spectrum(1.0 - 2.0 * table)
        return [found, influences(found), np.array(1 - 2 * noise_sensitivity(weight_by_degree(found), 0.9))]

    def by_theirs() -> list[np.ndarray]:
        analyzer = SpectralAnalyzer(function)
        return [analyzer.fourier_expansion(), analyzer.influences(), np.array(analyzer.noise_stability(0.9))]

    off = max(float(np.abs(a - b).max()) for a, b in zip(by_ours(), by_theirs(), strict=True))
    assert off < 1e-9, off
    mine, other = [], []
    for _ in range(3):
        mine += timed(by_ours, repeats=1)
        other += timed(by_theirs, repeats=1)
    helped = "with" if importlib.util.find_spec("numba") else "without"
    return {
        "case": f"spectrum, influences and noise stability, n = {n}, against boofun",
        "seconds": statistics.median(mine),
        "theirs, seconds": statistics.median(other),
        "faster": statistics.median(other) / statistics.median(mine),
        "samples": mine,
        "note": f"largest difference {off:.1e}; boofun {metadata.version('boofun')} {helped} numba",
    }


CASES = (
    *(f"transform({n}, {dtype!r})" for n in (22, 24, 26) for dtype in ("float64", "float32")),
    "fit(100, 2, 1_000_000, 'ols')",
    "fit(50, 3, 200_000, 'ols')",
    "fit(50, 3, 100_000, 'ridge')",
    "pairs(100_000, 50)",
    *(f"published({n})" for n in (10, 14, 18)),
)
RIVALS = ((50, 2, 100_000), (30, 3, 10_000), (50, 3, 40_000))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--resume", action="store_true", help="keep the rows of the file, measure those after them")
    parser.add_argument("--one")
    options = parser.parse_args()
    if options.one:
        print(json.dumps(eval(options.one)))
        return
    rows: list[Row] = []
    if options.resume:
        rows = list(Record.from_json(options.json.read_text()).data["rows"])
    for number in range(len(rows), len(CASES) + len(RIVALS)):
        rows.append(apart(CASES[number]) if number < len(CASES) else against(*RIVALS[number - len(CASES)]))
        print(rows[-1], flush=True)
        data = {"title": "Low-degree learning on synthetic uniform rows", "rows": rows}
        if options.json:  # an interrupted run keeps what it measured
            write_text(options.json, Record(kind="benchmark/learn", data=data, seed=SEED).to_json())


if __name__ == "__main__":
    main()
