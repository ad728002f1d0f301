"""Baykal et al., figure 1a: a piecewise constant function on random buckets of the line."""

from __future__ import annotations

import math

import torch

from lazyneuron.experiments.experiment import Finding, Request, published
from lazyneuron.experiments.reproduce.baykal.samples import SOURCE
from lazyneuron.route.bucket_regression import BucketRegression
from lazyneuron.route.bucket_settings import BucketSettings

_DIFFERS = "The paper's target is not given; this one is sin(3x) + x/2. The figure has no numbers."


def run(request: Request) -> Finding:
    """Bucket means at several widths."""
    rows = 2000 if request.quick else 20000
    g = torch.Generator().manual_seed(0)
    x = 2 * torch.rand(rows, 1, generator=g, dtype=torch.float64) - 1
    grid = torch.linspace(-1, 1, 400, dtype=torch.float64)[:, None]

    def target(v: torch.Tensor) -> torch.Tensor:
        return torch.sin(3 * v) + v / 2

    curves = [{"label": "target", "x": grid[:, 0].tolist(), "y": target(grid)[:, 0].tolist()}]
    table = []
    for number, scale in enumerate((2, 3, 4, 5)):
        settings = BucketSettings(degree=0, shrinkage=0.0, scale=scale, directions="orthogonal")
        model = BucketRegression(settings)
        model.start(x, target(x))
        model.add(x, target(x))
        error = (model.predict(grid) - target(grid)).abs()
        buckets = len(model.ladder(0)[-1].counts)
        table.append(
            {
                "buckets": buckets,
                "largest error": float(error.max()),
                "root mean square error": float(error.square().mean().sqrt()),
                "error x buckets": float(error.square().mean().sqrt()) * buckets,
                "paper": None,
            }
        )
        if scale in (3, 5):
            curves.append(
                {"label": f"{buckets} buckets", "x": grid[:, 0].tolist(), "y": model.predict(grid)[:, 0].tolist()}
            )
        request.advance((number + 1) / 4, f"{buckets} buckets")
    first, last = table[0], table[-1]
    factor = float(first["root mean square error"] or 0) / float(last["root mean square error"] or math.nan)
    return Finding(
        rows=table,
        curves=curves,
        sentence=f"With {last['buckets']} instead of {first['buckets']} buckets the error is {factor:.1f} times "
        "smaller: on a line it falls with the first power of their number.",
        axes=("x", "value"),
        facts={"rows": rows},
    )


EXPERIMENT = published(
    name="baykal-fig1",
    title="Constants on random buckets of the line",
    source=f"{SOURCE}, figure 1a",
    differs=_DIFFERS,
    run=run,
)
