"""Hash-routed regressors beside scikit-learn's, on four data sets.

Peers that cannot take a million rows in reasonable time are fitted to a subsample, which their row says.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from lazyneuron.experiments.bench.processor_time import clocked, median_s
from lazyneuron.route import random_polynomial
from lazyneuron.route.estimators import LSHRegressor

Array = npt.NDArray[np.float64]
Data = tuple[Array, Array, Array, Array]
#: An estimator, the most rows that it is fitted to, and FLOPs of one prediction.
Model = tuple[Callable[[], Any], int, Callable[[Any], float]]


def compare(rows: int, advance: Callable[[str], None]) -> list[dict[str, Any]]:
    """Error, fit time, predict time and inference FLOPs on every data set."""
    found = []
    for name, data in _data_sets(rows).items():
        for label, model in _models(data[0].shape[1]).items():
            advance(f"{name}: {label}")
            found.append({"data": name, "model": label, **_measured(data, model, few=label.startswith("KN"))})
    for row in found:
        others = [o for o in found if o["data"] == row["data"] and o is not row]
        row["on the Pareto front"] = not any(
            o["RMSE over deviation"] <= row["RMSE over deviation"] and o["predict us a row"] <= row["predict us a row"]
            for o in others
        )
    return found


def _measured(data: Data, model: Model, *, few: bool) -> dict[str, Any]:
    (x, y, x_test, y_test), (make, most, flops) = data, model
    some = min(most, len(x))
    asked = x_test[:4000] if few else x_test
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fitted, fit_s = clocked(lambda: make().fit(x[:some], y[:some]))
        fitted.predict(asked)
        predict_s = median_s(lambda: fitted.predict(asked), rounds=5)
        error = float(np.sqrt(np.mean((fitted.predict(asked) - y_test[: len(asked)]) ** 2)) / y_test.std())
    return {
        "rows fitted": some,
        "RMSE over deviation": error,
        "fit s": fit_s,
        "predict us a row": predict_s / len(asked) * 1e6,
        "inference FLOPs": flops(fitted),
    }


def _data_sets(rows: int) -> dict[str, Data]:
    """Two Lipschitz targets, Friedman-1 and diabetes; the last fifth, at most 20000 rows, is for testing."""
    from sklearn.datasets import load_diabetes, make_friedman1

    generator = np.random.default_rng(0)
    x = generator.uniform(-1, 1, (rows, 8))
    polynomial = random_polynomial(8, seed=0)(torch.from_numpy(x)).numpy()
    plane = generator.normal(size=(2, 8))
    u = generator.uniform(-1, 1, (rows, 2))
    waves = np.abs(np.sin(3 * u)).sum(1) + 0.05 * generator.normal(size=rows)
    friedman = make_friedman1(rows, n_features=10, noise=1.0, random_state=0)
    sets = {
        "polynomial of degree 4, d=8": (x, polynomial / polynomial.std()),
        "kinked waves on a plane in d=8": (u @ plane, waves),
        "Friedman-1, d=10": friedman,
        "diabetes": load_diabetes(return_X_y=True),
    }
    found = {}
    for name, (a, b) in sets.items():
        order = np.random.default_rng(1).permutation(len(a))
        cut = min(len(a) // 5, 20000)
        test, train = order[:cut], order[cut:]
        found[name] = (a[train], b[train], a[test], b[test])
    return found


def _models(features: int) -> dict[str, Model]:
    """Name to estimator, most rows that it is fitted to, and FLOPs of one prediction."""
    from sklearn.ensemble import HistGradientBoostingRegressor
    from sklearn.kernel_approximation import Nystroem
    from sklearn.linear_model import Ridge
    from sklearn.neighbors import KNeighborsRegressor
    from sklearn.neural_network import MLPRegressor
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    def buckets(model: LSHRegressor) -> float:
        fitted = model.model_
        return model.tables * (2.0 * features * fitted.pyramids[0].affine.hashes + 2 * features * fitted.frame.degree)

    many = 10**7
    return {
        "LSH, 1 table": (LSHRegressor, many, buckets),
        "LSH, 1 table, orthogonal": (lambda: LSHRegressor(directions="orthogonal"), many, buckets),
        "LSH, 1 table, constants": (lambda: LSHRegressor(degree=0), many, buckets),
        "LSH, 8 tables": (lambda: LSHRegressor(tables=8), many, buckets),
        "KNeighborsRegressor": (
            lambda: make_pipeline(StandardScaler(), KNeighborsRegressor(10)),
            200_000,
            lambda m: 2.0 * features * m[-1].n_samples_fit_,
        ),
        "HistGradientBoostingRegressor": (
            lambda: HistGradientBoostingRegressor(random_state=0),
            many,
            lambda m: float(sum(int(t[0].get_max_depth()) for t in m._predictors)),
        ),
        "MLPRegressor (100)": (
            lambda: make_pipeline(StandardScaler(), MLPRegressor(max_iter=30, random_state=0)),
            100_000,
            lambda m: 2.0 * 100 * (features + 1),
        ),
        "Nystroem (200) + Ridge": (
            lambda: make_pipeline(StandardScaler(), Nystroem(n_components=200, random_state=0), Ridge(1e-3)),
            100_000,
            lambda m: 2.0 * 200 * (features + 200 + 1),
        ),
    }
