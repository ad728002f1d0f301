"""F6, F9, F10 and F11: width and generalisation, degrees in a table, trained networks, Rademacher bounds."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from lazyneuron.experiments.experiment import Finding, Request
from lazyneuron.experiments.reproduce.awasthi.setting import ABSOLUTE, curve, experiment_of, facts_of
from lazyneuron.learn import average_sensitivity, sensitivity_bounds, spectrum, weight_by_degree
from lazyneuron.learn.bounds import Class, degree_adkm, degree_for, majority_gap, rademacher
from lazyneuron.learn.instances import (
    cluster_erm,
    code_net,
    gated_net,
    hamming_code,
    modulus_net,
    parity_net,
    random_sparse_net,
)


def width_gap(request: Request) -> Finding:
    """F6: the generalisation gap of exact empirical risk minimisation grows with the width as sqrt(s / (k m))."""
    m, repeats = (200, 50) if request.quick else (2000, 100 * request.seeds)
    rows, curves = [], []
    widths = [16, 64, 256] if request.quick else [16, 64, 256, 1024, 4096, 16384]
    generator = np.random.default_rng(0)
    for at, k in enumerate((1, 4, 16)):
        request.advance(at / 3, f"k = {k}")
        line = []
        for s in widths:
            q = s // k
            gaps = []
            for _ in range(repeats):
                cluster, label = generator.integers(0, q, m), generator.choice([-1, 1], m)
                gaps.append(0.5 - float(np.mean(cluster_erm(cluster, label, q)[cluster] != label)))
            exact, error = majority_gap(q, m), float(np.std(gaps)) / math.sqrt(repeats)
            rows.append(
                {
                    "k": k,
                    "s": s,
                    "gap": float(np.mean(gaps)),
                    "standard error": error,
                    "exact": exact,
                    ".399 sqrt(s / km)": 0.399 * math.sqrt(s / (k * m)),
                }
            )
            line.append(rows[-1]["gap"])
        curves.append(curve(f"k = {k}, measured", widths, line))
        curves.append(curve(f"k = {k}, exact", widths, [majority_gap(s // k, m) for s in widths]))
    off = max(abs(r["gap"] - r["exact"]) / max(r["standard error"], 1e-12) for r in rows)
    finding = (
        f"The gap of the exact minimiser equals its formula (largest deviation {off:.1f} standard errors of "
        f"{len(rows)}) and grows "
        "like .399 sqrt(s / (k m)) while clusters hold many samples: width costs as its square root, and more "
        "active neurons at "
        "a fixed width cost less, since clusters are fewer."
    )
    return Finding(
        rows=rows,
        curves=curves,
        sentence=finding,
        axes=("neurons s", "0-1 gap"),
        logarithmic="xy",
        facts={"m": m, "repeats": repeats, "seeds": request.seeds},
    )


def degrees(request: Request) -> Finding:
    """F9: published degree, ours, and the one that is needed."""
    n = 10 if request.quick else 14
    code = hamming_code(3 if request.quick else 4)
    families = [
        ("scaled parity, p = 4", parity_net(4, norm=1.0, n=n)),
        ("gated, k = 1", gated_net(3, n - 3, seed=0)),
        ("gated, k = 4", gated_net(3, n - 3, k=4, mode="independent", seed=0)),
        (f"code {code.n}", code_net(code, norm=1.0, seed=0)),
        ("random, k = 3", random_sparse_net(min(n, 12), 100, k=3, seed=0)),
        ("modulus", modulus_net(np.full(n, 1 / math.sqrt(n)))),
    ]
    rows: list[dict[str, Any]] = []
    curves = []
    shares = (0.5, 0.1, 0.02)
    for at, (name, one) in enumerate(families):
        request.advance(at / len(families), name)
        facts, k = facts_of(one), int(one.max_active or 1)
        norm, bias = one.net.norms()
        ladder = sensitivity_bounds(one.net, k=k).least
        needed = []
        for share in shares:
            error = share * facts.variance
            measured = int(np.argmax(np.append(facts.tails, 0.0) <= error))
            needed.append(measured)
            rows.append(
                {
                    "network": name,
                    "n": one.net.n,
                    "error / Var": share,
                    "ADKM": float(f"{degree_adkm(error, k, norm=norm, bias=bias, n=one.net.n, s=one.net.s).value:.2g}"),
                    "d_A (D3)": int(degree_for(error, k, norm=norm, rule="D3").value),
                    "D4": int(degree_for(error, k, norm=norm, s=one.net.s, rule="D4").value),
                    "ladder": max(math.ceil(ladder / error) - 1, 0),
                    "needed": measured,
                }
            )
        curves.append(curve(name, shares, needed))
    low = {key: min(r[key] for r in rows) for key in ("needed", "d_A (D3)", "ladder", "ADKM")}
    high = {key: max(r[key] for r in rows) for key in low}
    finding = (
        f"The degree that is needed lies between {low['needed']} and {high['needed']}, D3 certifies "
        f"{low['d_A (D3)']} to {high['d_A (D3)']}, the certificate ladder {low['ladder']} to {high['ladder']}, and the "
        f"published degree with its constant taken as 1 is at least {low['ADKM']:.2g}; what exceeds n is vacuous. "
        f"{ABSOLUTE}"
    )
    axes = ("error / variance", "degree that is needed")
    return Finding(
        rows=rows, curves=curves, sentence=finding, axes=axes, logarithmic="x", facts={"n": n, "seeds": request.seeds}
    )


def trained(request: Request) -> Finding:
    """F10: trained networks under pressure: activity, certificate, sensitivity, learnability."""
    from lazyneuron.learn.estimators import SparseReluRegressor

    q, m, width, epochs = (4, 500, 32, 20) if request.quick else (9, 4000, 128, 60)
    one = gated_net(3, q, seed=0)
    x, y = one.sample(m, seed=0)
    fresh, truth = one.sample(4000, seed=1)
    runs: list[dict[str, Any]] = [{"pressure": "none"}]
    runs += [{"pressure": "l1", "strength": s} for s in ((0.03,) if request.quick else (0.003, 0.01, 0.03, 0.1))]
    runs += [{"pressure": "shift", "strength": s} for s in (1.0,)]
    rows: list[dict[str, Any]] = []
    for at, options in enumerate(runs):
        request.advance(at / len(runs), str(options))
        model = SparseReluRegressor(width, epochs=epochs, random_state=0, **options).fit(x, y)
        ladder = sensitivity_bounds(model.net_)
        weights = weight_by_degree(spectrum(model.net_.table()))
        rows.append(
            {
                "pressure": " ".join(str(v) for v in options.values()),
                "E K": ladder.sparsity.mean_active,
                "k_eff": ladder.sparsity.effective,
                "AS": average_sensitivity(weights),
                "C3": ladder.c3,
                "C2": ladder.c2,
                "degree-3 R^2": 1 - float(weights[4:].sum() / weights[1:].sum()),
                "test error / Var": float(np.mean((model.predict(fresh) - truth) ** 2) / truth.var()),
            }
        )
    holds = all(r["AS"] <= min(r["C2"], r["C3"]) * (1 + 1e-9) for r in rows)
    order = sorted(rows, key=lambda r: r["k_eff"])
    factor = min(min(r["C2"], r["C3"]) / r["AS"] for r in rows)
    dense, sparse = order[-1], order[0]
    finding = (
        f"AS lies below C2 and C3 in {'every' if holds else 'NOT every'} run, by a factor of at least {factor:.1f}; "
        f"effective k goes from {dense['k_eff']:.1f} to {sparse['k_eff']:.1f} under pressure, and the test error from "
        f"{dense['test error / Var']:.3f} to {sparse['test error / Var']:.3f} of the variance. That sparser networks "
        f"are easier to learn is not promised: the share at degree 3 goes from {dense['degree-3 R^2']:.3f} to "
        f"{sparse['degree-3 R^2']:.3f}."
    )
    curves = [curve(name, [r["k_eff"] ** 2 for r in order], [r[name] for r in order]) for name in ("AS", "C2", "C3")]
    axes = ("E K^2", "average sensitivity and certificates")
    return Finding(
        rows=rows,
        curves=curves,
        sentence=finding,
        axes=axes,
        logarithmic="xy",
        facts={"m": m, "width": width, "seeds": request.seeds},
    )


def statistical(request: Request) -> Finding:
    """F11: upper and lower values of the Rademacher complexity against m."""
    of, k = Class(n=20, s=1000, k=1), 1
    ms = [10**e for e in range(2, 6 if request.quick else 9)]
    lines: dict[str, list[float]] = {"D10": [], "dense": [], "LSJGH": [], "trivial": [], "clusters, exact": []}
    rows: list[dict[str, Any]] = []
    for s in (1000, 100_000):
        one = Class(n=of.n, s=s, k=k)
        for at, m in enumerate(ms):
            request.advance((at / len(ms) + (s > 1000)) / 2, f"s = {s}, m = {m}")
            found = {
                "D10": rademacher("vc", one, rows=m),
                "dense": rademacher("dense", one, rows=m),
                "LSJGH": rademacher("lsjgh", one, rows=m),
                "trivial": rademacher("trivial", one, rows=m),
            }
            values = {name: bound.value for name, bound in found.items()}
            values["clusters, exact"] = 2 * k * majority_gap(s // k, m)
            useful = [name for name in ("D10", "dense", "LSJGH") if not found[name].vacuous]
            rows.append({"s": s, "m": m, **values, "not vacuous": ", ".join(useful) or "none"})
            if s == of.s:
                for name, value in values.items():
                    lines[name].append(value)
    slope = [math.log10(lines[name][-1] / lines[name][-2]) for name in ("D10", "clusters, exact")]
    first = next((r["m"] for r in rows if r["s"] == of.s and "D10" in r["not vacuous"]), None)
    below = first or "the largest m here"
    finding = (
        f"Over the last decade D10 falls with slope {slope[0]:.2f} and the exact value of clusters with {slope[1]:.2f} "
        f"in log m: the scaling sqrt(s k / m) is right, the constants are not. D10 says nothing below m = {below} "
        "(n = 20, s = 1000, k = 1), LSJGH (an unreviewed manuscript) nothing at far more; they are no certificates at "
        "this scale."
    )
    curves = [curve(name, ms, values) for name, values in lines.items()]
    return Finding(
        rows=rows,
        curves=curves,
        sentence=finding,
        axes=("samples m", "Rademacher complexity"),
        logarithmic="xy",
        facts={"n": 20, "seeds": request.seeds},
    )


EXPERIMENTS = (
    experiment_of(6, "F6: generalisation and width, exactly", width_gap),
    experiment_of(9, "F9: degrees, published, certified and needed", degrees),
    experiment_of(10, "F10: trained networks under pressure", trained),
    experiment_of(11, "F11: Rademacher bounds and the value of clusters", statistical),
)
