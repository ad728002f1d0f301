"""Hash-routed estimators beside scikit-learn's.

One thread, processor time of the process (waiting for other load does not count), test error on rows that no model saw.
Peers that cannot take a million rows in reasonable time are fitted to a subsample, which their row says.
"""

# ruff: noqa: B023  (every closure is called before its loop goes on)
from __future__ import annotations

import argparse
import math
import resource
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from lazyneuron.core.record import Record, write_text
from lazyneuron.ops.buckets.operators import native_ops, new_rows
from lazyneuron.route import HashedOutput, random_polynomial
from lazyneuron.route.estimators import LSHRegressor
from lazyneuron.route.table import BucketTable

Data = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def data_sets(rows: int) -> dict[str, Data]:
    """Two Lipschitz targets, Friedman-1 and diabetes; the last fifth, at most 20000 rows, is for testing."""
    from sklearn.datasets import load_diabetes, make_friedman1

    dice = np.random.default_rng(0)
    x = dice.uniform(-1, 1, (rows, 8))
    polynomial = random_polynomial(8, seed=0)(torch.from_numpy(x)).numpy()
    plane = dice.normal(size=(2, 8))
    u = dice.uniform(-1, 1, (rows, 2))
    waves = np.abs(np.sin(3 * u)).sum(1) + 0.05 * dice.normal(size=rows)
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


def models(features: int) -> dict[str, tuple[Callable[[], Any], int, Callable[[Any], float]]]:
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


def clocked(work: Callable[[], Any]) -> tuple[Any, float]:
    """The result, and the processor seconds that this process took."""
    start = time.process_time()
    result = work()
    return result, time.process_time() - start


def compare(rows: int) -> list[dict[str, Any]]:
    """Error, fit time, predict time and inference FLOPs on every data set."""
    found = []
    for name, (x, y, x_test, y_test) in data_sets(rows).items():
        for label, (make, most, flops) in models(x.shape[1]).items():
            some = min(most, len(x))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                model, fit_s = clocked(lambda make=make, some=some: make().fit(x[:some], y[:some]))
                asked = x_test[:4000] if label.startswith("KN") else x_test
                model.predict(asked)
                times = [clocked(lambda model=model, asked=asked: model.predict(asked))[1] for _ in range(5)]
                error = float(np.sqrt(np.mean((model.predict(asked) - y_test[: len(asked)]) ** 2)) / y_test.std())
            row = {
                "data": name,
                "model": label,
                "rows fitted": some,
                "RMSE over deviation": error,
                "fit s": fit_s,
                "predict us a row": statistics.median(times) / len(asked) * 1e6,
                "inference FLOPs": flops(model),
            }
            found.append(row)
            print(row, flush=True)
    for row in found:
        others = [o for o in found if o["data"] == row["data"] and o is not row]
        row["on the Pareto front"] = not any(
            o["RMSE over deviation"] <= row["RMSE over deviation"] and o["predict us a row"] <= row["predict us a row"]
            for o in others
        )
    return found


def flatness(largest: int) -> list[dict[str, Any]]:
    """Predict time over the number of buckets, of the operator alone; every row asks for a bucket at random."""
    from lazyneuron.route import random_hash

    ops, found = native_ops(), []
    for power in range(8, largest + 1, 2):
        g = torch.Generator().manual_seed(0)
        buckets = 1 << power
        h = random_hash(8, 8, width=1e-4, generator=g, orthogonal=True)
        x = torch.rand(buckets, 8, generator=g) * 2 - 1
        table = BucketTable(8)
        table.reserve(buckets)
        table.add(h.vectors(x))
        values = new_rows(len(table), 9, dtype=torch.float64, ops=ops).normal_(generator=g)
        asked = x[torch.randint(0, buckets, (1 << 19,), generator=g)].clone()
        y, slots = torch.empty(len(asked), 1, dtype=torch.float64), torch.empty(len(asked), dtype=torch.int64)
        call = (asked, h.w, h.b, 0, *table.native, len(table), values, 1, 1, y, slots)
        ops.bucket_predict(*call)
        times = [clocked(lambda call=call: ops.bucket_predict(*call))[1] for _ in range(9)]
        found.append({"buckets": len(table), "ns a row": statistics.median(times) / len(asked) * 1e9})
        print(found[-1], flush=True)
    for row in found:
        row["over the smallest"] = row["ns a row"] / found[0]["ns a row"]
    return found


def speed(rows: int) -> list[dict[str, Any]]:
    """Rows a second of fit and predict at d = 8, one table, and the peak memory of the process."""
    found = []
    for degree in (0, 1):
        dice = np.random.default_rng(0)
        x = dice.uniform(-1, 1, (rows, 8)).astype(np.float32)
        y = np.abs(x[:, 0]) + x[:, 1] * x[:, 2] + 0.1 * dice.normal(size=rows)
        model, fit_s = clocked(lambda degree=degree, x=x, y=y: LSHRegressor(degree=degree).fit(x, y))
        asked = x[: min(rows, 10**6)]
        times = [clocked(lambda model=model, asked=asked: model.predict(asked))[1] for _ in range(5)]
        found.append(
            {
                "degree": degree,
                "rows": rows,
                "buckets": model.n_buckets_,
                "fit rows/s": rows / fit_s,
                "predict rows/s": len(asked) / statistics.median(times),
                "peak GiB, data included": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
            }
        )
        print(found[-1], flush=True)
    return found


def output_layer(classes: int, steps: int) -> list[dict[str, Any]]:
    """Dense and hash-sampled softmax on synthetic classes with Zipf frequencies: time of a step, and final loss.

    Both see the same batches of 256 with the same learning rate, which falls in a straight line to 0.
    """
    g = torch.Generator().manual_seed(0)
    centres = torch.randn(classes, 128, generator=g)
    chance = 1 / torch.arange(1, classes + 1, dtype=torch.float64)

    def batch(rows: int, dice: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        labels = torch.multinomial(chance, rows, replacement=True, generator=dice)
        return (centres[labels] + torch.randn(rows, 128, generator=dice)) / math.sqrt(2), labels

    x_test, y_test = batch(2048, torch.Generator().manual_seed(9))
    found = []
    for name in ("dense softmax", "hash-sampled"):
        layer = HashedOutput(128, classes, hard=4096, sampled=12288, seed=1)
        layer.weight.data.mul_(0.1)
        dense = torch.nn.ParameterList([layer.weight.detach().clone(), torch.zeros(classes)])
        optimizer = (
            torch.optim.Adam(dense.parameters(), lr=0.02)
            if name == "dense softmax"
            else torch.optim.SparseAdam(layer.parameters(), lr=0.02)
        )
        dice, times = torch.Generator().manual_seed(2), []
        for number in range(steps):
            optimizer.param_groups[0]["lr"] = 0.02 * (1 - number / steps)
            x, labels = batch(256, dice)

            def step(x: torch.Tensor = x, labels: torch.Tensor = labels, name: str = name) -> None:
                optimizer.zero_grad(set_to_none=True)
                sampled = name == "hash-sampled"
                loss = layer.loss(x, labels) if sampled else F.cross_entropy(F.linear(x, dense[0], dense[1]), labels)
                loss.backward()
                optimizer.step()

            times.append(clocked(step)[1])
        with torch.no_grad():
            logits = layer(x_test) if name == "hash-sampled" else F.linear(x_test, dense[0], dense[1])
            loss, hits = float(F.cross_entropy(logits, y_test)), float((logits.argmax(1) == y_test).double().mean())
        row = {
            "layer": name,
            "classes": classes,
            "steps": steps,
            "median step ms": statistics.median(times) * 1e3,
            "mean step ms": statistics.mean(times) * 1e3,
            "final loss, dense evaluation": loss,
            "accuracy": hits,
            "recall of the best class": layer.recall(x_test[:200]) if name == "hash-sampled" else 1.0,
        }
        found.append(row)
        print(row, flush=True)
    return found


def main() -> None:
    """Measure and write the record; ``--part`` renews one part of an existing record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--part", choices=("compare", "flatness", "speed", "output"), action="append")
    options = parser.parse_args()
    torch.set_num_threads(1)
    quick = options.quick
    parts: dict[str, Callable[[], list[dict[str, Any]]]] = {
        "flatness": lambda: flatness(12 if quick else 22),
        "speed": lambda: speed(10**5 if quick else 10**7),
        "output": lambda: output_layer(2000 if quick else 100_000, 20 if quick else 800),
        "compare": lambda: compare(3000 if quick else 1_020_000),
    }
    data = dict(Record.from_json(options.json.read_text()).data) if options.part and options.json.exists() else {}
    for name in options.part or parts:
        data[name] = parts[name]()
        title = "Hash-routed estimators, one thread" + (", quick" if quick else "")
        record = Record(kind="benchmark/route", data={**data, "title": title}, seed=0)
        write_text(options.json, record.to_json())


if __name__ == "__main__":
    main()
