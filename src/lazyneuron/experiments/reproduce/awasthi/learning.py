"""F4 and F5: learning curves of low-degree regression, its rivals and its predictions."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from lazyneuron.experiments.experiment import Finding, Request
from lazyneuron.experiments.reproduce.awasthi.setting import ABSOLUTE, curve, experiment_of, facts_of
from lazyneuron.learn.bounds import gram_failure, risk_lmn, risk_ols, typical_risk_ols
from lazyneuron.learn.instances import Instance, gated_net, parity_net
from lazyneuron.ops.array import Array
from lazyneuron.ops.boolean.subsets import count_subsets

RIVAL = (
    "Networks trained by gradients are often better on such small instances; hardness is for statistical queries, not "
    "for these."
)


def error_by_degree(request: Request) -> Finding:
    """F4: test error against the degree for k = 1, 2, 4, 8."""
    n, top, m = (10, 3, 3000) if request.quick else (20, 5, 60_000)
    rows: list[dict[str, Any]] = []
    curves = []
    ks = [1, 2] if request.quick else [1, 2, 4, 8]
    for at, k in enumerate(ks):
        one = gated_net(3, n - 3, k=k, mode="independent", seed=0)
        facts = facts_of(one)
        x, y = one.sample(m, seed=1)
        fresh, truth = one.sample(4000, seed=2)
        scores = []
        for d in range(1, top + 1):
            request.advance((at + (d - 1) / top) / len(ks), f"k = {k}, degree {d}")
            error = float(np.mean((_fit("ols", d, x, y).predict(fresh) - truth) ** 2))
            scores.append(1 - error / facts.variance)
            rows.append(
                {
                    "k": k,
                    "degree": d,
                    "features": count_subsets(n, d),
                    "error / 4k^2W^2": error / facts.scale,
                    "tail / 4k^2W^2": float(facts.tails[d]) / facts.scale,
                    "D3": 1 / (d + 1),
                    "R^2": scores[-1],
                    "tail / Var": float(facts.tails[d]) / facts.variance,
                }
            )
        curves.append(curve(f"k = {k}", range(1, top + 1), scores))
    last = [r for r in rows if r["degree"] == top]
    finding = (
        f"The error follows the tail (at degree {top}: R^2 {last[0]['R^2']:.3f} for k = 1 where the tail allows "
        f"{1 - last[0]['tail / Var']:.3f}) and bends at the number of address bits, 3; as a share of 4 k^2 W^2 "
        "it is at most "
        f"{max(r['error / 4k^2W^2'] for r in rows):.2g}, far below D3. {ABSOLUTE} {RIVAL}"
    )
    return Finding(
        rows=rows,
        curves=curves,
        sentence=finding,
        axes=("degree", "R^2 on fresh rows"),
        facts={"n": n, "rows_m": m, "seeds": request.seeds},
    )


def error_by_rows(request: Request) -> Finding:
    """F5: test error against the number of rows, for all learners."""
    n, d = (8, 2) if request.quick else (14, 3)
    one = gated_net(3, n - 3, gate=2.0, seed=0)
    facts = facts_of(one, k=1)
    size = count_subsets(n, d)
    sizes = [int(size * f) for f in ((0.5, 2, 8) if request.quick else (0.25, 0.5, 0.9, 1.1, 1.5, 2, 4, 8, 16))]
    learnable = float(facts.weights[1 : d + 1].sum())
    learners = ("ols", "lmn", "lasso", "threshold", "kernel", "network")
    lines: dict[str, list[tuple[int, float]]] = {name: [] for name in (*learners, "OLS, predicted", "LMN, D7")}
    rows = []
    for at, m in enumerate(sizes):
        row: dict[str, Any] = {"rows": m, "rows / features": round(m / size, 2)}
        for name in learners:
            request.advance(at / len(sizes), f"{m} rows, {name}")
            if name == "ols" and m < size:
                row[name] = "-"
                continue
            found = [_risk(name, d, one, m, seed) / facts.variance for seed in range(request.seeds)]
            row[name] = float(np.median(found))
            lines[name].append((m, row[name]))
        tail = float(facts.tails[d])
        row["OLS, predicted"] = typical_risk_ols(tail, size, rows=m) / facts.variance if m > size else "-"
        centred = risk_lmn(tail, size, rows=m, variance=facts.variance, learnable=learnable)
        row["LMN, D7"] = centred.value / facts.variance
        certain = gram_failure(size, m) < 0.1
        row["OLS, D6"] = risk_ols(tail, size, rows=m).value / facts.variance if certain else "-"
        for name in ("OLS, predicted", "LMN, D7"):
            if row[name] != "-" and row[name] < 20:
                lines[name].append((m, row[name]))
        rows.append(row)
    best = min(learners, key=lambda name: rows[-1][name])
    sparse = _sparse_wins(request)
    finding = (
        f"Least squares follows tail + tail N / (m - N) (at {sizes[-1]} rows {rows[-1]['ols']:.3f} of the "
        "variance, predicted "
        f"{rows[-1]['OLS, predicted']:.3f}) and explodes near m = N = {size}; averaging follows D7 "
        f"({rows[-1]['lmn']:.3f}, bound "
        f"{rows[-1]['LMN, D7']:.3f}). With most rows the best is {best} ({rows[-1][best]:.3f}). {sparse} {RIVAL}"
    )
    return Finding(
        rows=rows,
        curves=[curve(name, *zip(*points, strict=True)) for name, points in lines.items() if points],
        sentence=finding,
        axes=("rows", "squared error / variance"),
        logarithmic="xy",
        facts={"n": n, "degree": d, "features": size, "seeds": request.seeds},
    )


def _sparse_wins(request: Request) -> str:
    n = 12 if request.quick else 30
    one = parity_net(3, n=n)
    x, y = one.sample(120, seed=0)
    fresh, truth = one.sample(2000, seed=1)
    found = {s: float(np.mean((_fit(s, 3, x, y).predict(fresh) - truth) ** 2)) / 4 for s in ("threshold", "kernel")}
    return (
        f"On a junta (3-parity, n = {n}, 120 rows, {count_subsets(n, 3)} features) a threshold leaves "
        f"{found['threshold']:.2g} "
        f"of the variance, the kernel {found['kernel']:.2g}."
    )


def _risk(name: str, degree: int, one: Instance, m: int, seed: int) -> float:
    x, y = one.sample(m, seed=100 + seed)
    fresh, truth = one.sample(4000, seed=200 + seed)
    return float(np.mean((_fit(name, degree, x, y, seed=seed).predict(fresh) - truth) ** 2))


def _fit(name: str, degree: int, x: Array, y: Array, *, seed: int = 0) -> Any:
    from lazyneuron.learn.estimators import GramWarning, LowDegreeRegressor, SparseReluRegressor

    if name == "network":
        return SparseReluRegressor(128, pressure="l1", strength=0.02, epochs=60, random_state=seed).fit(x, y)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", GramWarning)  # the figure is about what happens there
        return LowDegreeRegressor(degree, solver=name).fit(x, y)


EXPERIMENTS = (
    experiment_of(4, "F4: low-degree regression against the degree", error_by_degree),
    experiment_of(5, "F5: learners against the number of rows", error_by_rows),
)
