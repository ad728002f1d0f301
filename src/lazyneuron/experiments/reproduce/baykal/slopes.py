"""What the theorem says about exponents, measured: error over buckets on subspaces and manifolds; degree 0 and 1."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from lazyneuron.experiments.experiment import Finding, Request, published
from lazyneuron.experiments.reproduce.baykal.samples import SOURCE
from lazyneuron.route import fit_exponent, on_manifold, on_subspace, predicted_slope
from lazyneuron.route.bucket_regression import BucketRegression
from lazyneuron.route.bucket_settings import BucketSettings

Draw = Callable[..., tuple[Tensor, Tensor]]
_SHAPES: dict[str, Draw] = {"subspace": on_subspace, "manifold": on_manifold}
_DIFFERS = (
    "The paper proves the exponent and measures no slope. The target is the sum of sin(3u) over the inner coordinates "
    "u; "
    "hashes are orthogonal; widths from 2 deviations down to where buckets get too few rows."
)


def measure(
    x: Tensor, y: Tensor, *, degree: int, hashes: int, scales: Sequence[int], fewest: float = 12.0
) -> tuple[list[float], list[float]]:
    """Buckets and root mean square test errors at each width whose buckets hold ``fewest`` rows on average."""
    cut = len(x) * 4 // 5
    buckets, errors = [], []
    for scale in scales:
        settings = BucketSettings(
            degree=degree,
            shrinkage=0.0 if degree == 0 else 1e-6,
            scale=scale,
            directions="orthogonal",
            hashes=hashes,
            capacity=1 << 24,
        )
        model = BucketRegression(settings)
        model.start(x[:20000], y[:20000])
        model.add(x[:cut], y[:cut])
        count = len(model.ladder(0)[-1].counts)
        if cut / count < fewest:
            break
        buckets.append(float(count))
        errors.append(float((model.predict(x[cut:]) - y[cut:]).square().mean().sqrt()))
    return buckets, errors


def slopes(request: Request) -> Finding:
    """The exponent for several k inside d = 32 and 128."""
    rows_count = 20000 if request.quick else 500000
    cases = [
        (shape, features, k, 0)
        for shape in _SHAPES
        for features in ((32,) if request.quick else (32, 128))
        for k in ((1, 2) if request.quick else (1, 2, 3))
    ]
    cases += [("subspace", 32, k, 1) for k in ((1,) if request.quick else (1, 2, 3))]
    rows: list[dict[str, Any]] = []
    curves = []
    for number, (shape, features, k, degree) in enumerate(cases):
        g = torch.Generator().manual_seed(0)
        x, u = _SHAPES[shape](
            rows_count if features < 100 else rows_count // 2, features=features, dimension=k, generator=g
        )
        y = torch.sin(3 * u).sum(1, keepdim=True)
        hashes = 1 if k == 1 and shape == "subspace" else 2 * k
        buckets, errors = measure(x.float(), y, degree=degree, hashes=hashes, scales=range(2, 11))
        fit = fit_exponent(buckets, errors, predicted=predicted_slope(dimension=k, degree=degree))
        rows.append(
            {
                "inputs": shape,
                "d": features,
                "k": k,
                "degree": degree,
                "measured slope": fit.slope,
                "theory": fit.predicted,
                "slope if d decided": -(1 + degree) / features,
                "residual of logarithms": fit.residual,
                "most buckets": int(buckets[-1]),
            }
        )
        if degree == 0:
            curves.append({"label": f"{shape}, d={features}, k={k}", "x": [math.log2(b) for b in buckets], "y": errors})
        request.advance((number + 1) / len(cases), f"{shape}, d = {features}, k = {k}, degree {degree}")
    off = max(abs(row["measured slope"] / row["theory"] - 1) for row in rows)
    return Finding(
        rows=rows,
        curves=curves,
        sentence=f"Slopes follow k, not d: the farthest of {len(rows)} is {off:.0%} from the theory's exponent.",
        axes=("log2 of the number of buckets", "root mean square error"),
        facts={"rows": rows_count},
    )


def degrees(request: Request) -> Finding:
    """Constants against affine functions, at equal parameters and at equal buckets."""
    rows_count, d = (20000, 2) if request.quick else (600000, 4)
    g = torch.Generator().manual_seed(0)
    x = 2 * torch.rand(rows_count, d, generator=g, dtype=torch.float64) - 1
    rows: list[dict[str, Any]] = []
    curves, best = [], {}
    targets = {"smooth": torch.sin(3 * x).sum(1, keepdim=True), "kinked": (3 * x).sin().abs().sum(1, keepdim=True)}
    for number, (name, y) in enumerate(targets.items()):
        for degree in (0, 1):
            buckets, errors = measure(x, y, degree=degree, hashes=d, scales=range(1, 11), fewest=3.0 * (1 + d * degree))
            curve = {"label": f"{name}, degree {degree}", "x": [math.log2(b * (1 + d * degree)) for b in buckets]}
            curves.append({**curve, "y": errors})
            best[name, degree] = min(errors)
            rows += [
                {
                    "target": name,
                    "degree": degree,
                    "buckets": int(b),
                    "parameters": int(b) * (1 + d * degree),
                    "RMSE": e,
                    "paper": None,
                }
                for b, e in zip(buckets, errors, strict=True)
            ]
        request.advance((number + 1) / 2, name)
    return Finding(
        rows=rows,
        curves=curves,
        sentence=f"An affine function in each bucket is better at equal parameters: the best error falls from "
        f"{best['smooth', 0]:.3g} to {best['smooth', 1]:.3g} on the smooth target and from "
        f"{best['kinked', 0]:.3g} to "
        f"{best['kinked', 1]:.3g} on the kinked one."
        if best["smooth", 1] < best["smooth", 0] and best["kinked", 1] < best["kinked", 0]
        else "An affine function in each bucket is not better on every target here.",
        axes=("log2 of the number of parameters", "root mean square error"),
        facts={"rows": rows_count, "features": d},
    )


EXPERIMENTS = (
    published(
        name="baykal-slopes",
        title="Error over buckets on k-dimensional inputs: the exponent",
        source=f"{SOURCE}, theorems 4.1 and B.1; the slopes are ours",
        differs=_DIFFERS,
        run=slopes,
    ),
    published(
        name="baykal-degree",
        title="Constants or affine functions in the buckets, at equal parameters",
        source=f"{SOURCE}, an open question of section 6",
        differs="The paper asks this question and answers it with no measurement.",
        run=degrees,
    ),
)
