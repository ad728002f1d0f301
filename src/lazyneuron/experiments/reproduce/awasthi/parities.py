"""F7 and F8: parities, plain and lifted: what is hard, for whom, and what is not."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np

from lazyneuron.experiments.experiment import Finding, Request
from lazyneuron.experiments.reproduce.awasthi.setting import curve, experiment_of
from lazyneuron.learn import cube, degree_weights_from_samples
from lazyneuron.learn.instances import lifted_parity, parity_net
from lazyneuron.ops.boolean.reference import columns
from lazyneuron.ops.boolean.subsets import count_subsets


def parity_steps(request: Request) -> Finding:
    """F7: the error of a parity falls in one step, at its degree; D9 sees it with far fewer rows."""
    from lazyneuron.learn.estimators import GramWarning, LowDegreeRegressor

    n, ps = (10, range(2, 4)) if request.quick else (16, range(2, 7))
    rows: list[dict[str, Any]] = []
    curves = []
    for at, p in enumerate(ps):
        request.advance(at / len(ps), f"p = {p}")
        one = parity_net(p, n=n)
        scores = []
        for d in range(1, p + 2):
            if count_subsets(n, d) > 15_000:
                break
            x, y = one.sample(2 * count_subsets(n, d), seed=d)
            fresh, truth = one.sample(2000, seed=99)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", GramWarning)
                model = LowDegreeRegressor(d, solver="ols").fit(x, y)
            scores.append(1 - float(np.mean((model.predict(fresh) - truth) ** 2)) / 4)
        curves.append(curve(f"p = {p}", range(1, len(scores) + 1), np.maximum(scores, 0)))
        rows.append(
            {
                "p": p,
                "R^2 below p": scores[p - 2],
                "R^2 at p": scores[p - 1],
                "features at p": count_subsets(n, p),
                "rows until D9 sees it": _rows_to_see(p, n, seeds=max(request.seeds, 5)),
                "sqrt(C(n, p))": round(math.sqrt(math.comb(n, p)), 1),
            }
        )
    below = max(0.0, *(r["R^2 below p"] for r in rows))
    last = rows[-1]
    finding = (
        f"R^2 goes from at most {below:.2g} to at least {min(r['R^2 at p'] for r in rows):.4f} exactly at degree p, "
        f"with {last['features at p']} features for p = {last['p']}; D9 sees the level in four of five samples of "
        f"{last['rows until D9 sees it']} rows. The cost n^p is for low-degree and statistical-query learners: "
        "elimination and queries find a noiseless parity at once."
    )
    return Finding(
        rows=rows,
        curves=curves,
        sentence=finding,
        axes=("degree", "R^2 (0 if below)"),
        facts={"n": n, "seeds": request.seeds},
    )


def _rows_to_see(p: int, n: int, *, seeds: int) -> int:
    """Rows, doubling from 8, at which the weight of level p exceeds twice its standard error in 4 of 5 samples."""
    m = 8
    while m < 100_000:
        hits = 0
        for seed in range(seeds):
            x, y = parity_net(p, n=n).sample(m, seed=1000 + seed)
            found = degree_weights_from_samples(x, y, max_degree=p)
            hits += found.weights[p] > 2 * found.standard_error[p]
        if hits >= 0.8 * seeds:
            return m
        m *= 2
    return m


def lifted(request: Request) -> Finding:
    """F8: parities on the lifted law: no correlation below half the size, gradients fail, algebra does not."""
    from lazyneuron.learn.estimators import SparseReluRegressor

    m, count, epochs = (7, 600, 30) if request.quick else (12, 6000, 100)
    bits = 6 if request.quick else 8
    rows: list[dict[str, Any]] = []
    degrees = (1, 2) if request.quick else (1, 2, 3)
    lines: dict[str, list[float]] = {**{f"degree {d}": [] for d in degrees}, "network": []}
    every = cube.points(bits)
    sizes = range(1, bits + 1)
    for size in sizes:
        request.advance((size - 1) / bits, f"|S| = {size}")
        one = lifted_parity(bits, range(size), compact=True, plus_minus=True)
        label = one.net(one.lift(every))
        row: dict[str, Any] = {"|S|": size}
        for d in degrees:
            features = columns(every, min(2 * d, bits))  # the monomials of the lift without repetitions
            row[f"largest correlation, degree {d}"] = float(np.abs(features.T @ label).max()) / len(label)
            residual = label - features @ np.linalg.lstsq(features, label, rcond=None)[0]
            row[f"R^2, degree {d}"] = 1 - float(np.mean(residual**2))
            lines[f"degree {d}"].append(row[f"R^2, degree {d}"])
        wide = lifted_parity(m, range(min(size, m)), compact=True, plus_minus=True)
        model = SparseReluRegressor(128, epochs=epochs, random_state=0).fit(*wide.sample(count, seed=0))
        row["network, test R^2"] = float(model.score(*wide.sample(2000, seed=1)))
        lines["network"].append(max(row["network, test R^2"], 0.0))
        row["rows for elimination"] = _rows_for_elimination(m, min(size, m), seed=size)
        row["queries"] = m + 1
        rows.append(row)
    zero = all(row[f"largest correlation, degree {d}"] == 0 for row in rows for d in degrees if 2 * d < row["|S|"])
    finding = (
        f"All correlations of degree d are {'exactly 0' if zero else 'NOT all 0'} while 2 d < |S|, and R^2 "
        "jumps to 1 from there; the "
        f"network of 128 neurons on {count} rows ({m} bits) reaches R^2 {rows[0]['network, test R^2']:.2f} at "
        "|S| = 1 and "
        f"{rows[-1]['network, test R^2']:.2f} at |S| = {sizes[-1]}. Noiseless parity stays easy for algebra "
        "(elimination over GF(2) "
        f"needs at most {max(r['rows for elimination'] for r in rows)} rows) and for queries: hardness is for "
        "statistical queries and "
        "gradients, not absolute."
    )
    axes = ("size of the parity, |S|", "R^2 (0 if below)")
    return Finding(
        rows=rows,
        curves=[curve(k, sizes, v) for k, v in lines.items()],
        sentence=finding,
        axes=axes,
        facts={"bits": bits, "m": m, "seeds": request.seeds},
    )


def _rows_for_elimination(m: int, size: int, *, seed: int) -> int:
    """Rows of (y, parity) until elimination over GF(2) leaves the secret alone, checked against it."""
    y = cube.random_points(8 * m, m, seed=seed) < 0
    label = y[:, :size].sum(axis=1) % 2
    basis: dict[int, int] = {}
    for count, (bits, b) in enumerate(zip(y, label, strict=True), 1):
        row = int(sum(1 << i for i in np.flatnonzero(bits))) | int(b) << m
        for pivot, other in basis.items():
            if row >> pivot & 1:
                row ^= other
        low = row & ((1 << m) - 1)
        if low:
            pivot = low.bit_length() - 1
            basis = {p: o ^ row if o >> pivot & 1 else o for p, o in basis.items()} | {pivot: row}
        if len(basis) == m:
            secret = {p for p, o in basis.items() if o >> m & 1}
            assert secret == set(range(size))
            return count
    return 8 * m


EXPERIMENTS = (
    experiment_of(7, "F7: the step of a parity", parity_steps),
    experiment_of(8, "F8: parities on the lifted law", lifted),
)
