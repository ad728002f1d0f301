"""Baykal et al., figures 2, 3 and 4: error over activated units and over buckets, on the cube and on subspaces."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from lazyneuron.experiments.experiment import Experiment, Finding, Request, band, published
from lazyneuron.experiments.reproduce.baykal.samples import (
    CLOSED_FORM,
    FEATURES,
    SOURCE,
    Sample,
    bucket_error,
    draw,
    masked_network,
    mean_squared_error,
)
from lazyneuron.route import DSM, RandomHash, hyperplane_cells

_PAPER_FROM = 2048
_DIMENSION = 4  # of the subspaces


@dataclasses.dataclass(frozen=True, kw_only=True)
class Setting:
    """What a figure is drawn for.

    Attributes:
        target: ``"polynomial"`` or ``"hypercube"``.
        dimension: of the inputs' subspace; None for the cube.
    """

    target: str
    dimension: int | None = None

    def samples(self, request: Request, rows: int) -> list[Sample]:
        """One for each seed."""
        return [
            draw(self.target, rows=rows, tests=4000, seed=seed, dimension=self.dimension)
            for seed in range(request.seeds)
        ]

    def facts(self, request: Request, sample: Sample) -> dict[str, Any]:
        """Settings for the page."""
        return {
            "target": self.target,
            "dimension of the inputs": self.dimension or FEATURES,
            "rows": len(sample.x),
            "variance of the target": sample.variance,
            "seeds": request.seeds,
            "quick": request.quick,
        }


def dense_error(sample: Sample, width: int, seed: int) -> float:
    """Of the dense random layer."""
    return mean_squared_error(masked_network(width, width, seed=seed), sample)


def fig2(request: Request, setting: Setting) -> Finding:
    """DSM at several widths, over its activated units."""
    actives = (16, 32, 64) if request.quick else (32, 64, 128, 256)
    wholes = (128, 256) if request.quick else (256, 512, 1024)
    samples = setting.samples(request, 3000 if request.quick else 20000)
    curves, rows, total = [], [], len(wholes) + 1
    for number, width in enumerate((None, *wholes)):
        label = "dense" if width is None else f"DSM, {width} units in all"
        runs = [
            [mean_squared_error(masked_network(width or s, s, seed=seed), sample) for s in actives]
            for seed, sample in enumerate(samples)
        ]
        curves.append(band(label, x=actives, runs=runs))
        rows += [
            {"model": label, "active": s, "MSE": y, "paper": None}
            for s, y in zip(actives, curves[-1]["y"], strict=True)
        ]
        request.advance((number + 1) / total, label)
    best = curves[-1]["y"][-1] / curves[0]["y"][-1]
    return Finding(
        rows=rows,
        curves=curves,
        sentence=f"With {actives[-1]} active units of {wholes[-1]} the error is {best:.2f} times that of a dense layer "
        f"of {actives[-1]} units.",
        axes=("active units", "mean squared error"),
        facts=setting.facts(request, samples[0]),
    )


def equal_width(bits: int) -> int:
    """Units of a dense layer with the FLOPs of hashing by so many hyperplanes, at least one."""
    return max(1, bits * FEATURES // (FEATURES + 1))


def fig3(request: Request, setting: Setting) -> Finding:
    """LSH over its number of buckets, beside dense layers."""
    bits = (4, 6, 8) if request.quick else (5, 7, 9, 11, 13, 15)
    whole = 20000 if request.quick else 400000
    samples = setting.samples(request, whole)
    few = [Sample(x=s.x[:20000], y=s.y[:20000], x_test=s.x_test, y_test=s.y_test) for s in samples]
    lsh = [[bucket_error(s, bits=m, seed=seed) for m in bits] for seed, s in enumerate(samples)]
    request.advance(0.4, "LSH")
    dense = [[dense_error(s, equal_width(m), seed) for m in bits] for seed, s in enumerate(few)]
    request.advance(0.7, "dense at equal FLOPs")
    wide = 64 if request.quick else 256
    flat = [[dense_error(s, wide, seed)] * len(bits) for seed, s in enumerate(few)]
    request.advance(1.0, f"dense of width {wide}")
    x = [2**m for m in bits]
    named = {"LSH": lsh, "dense, equal FLOPs": dense, f"dense, {wide} units": flat}
    curves = [band(label, x=x, runs=runs) for label, runs in named.items()]
    means = [curve["y"] for curve in curves]

    def cells(m: int) -> dict[str, int]:
        k = setting.dimension
        return {} if k is None else {"of which hyperplanes reach": hyperplane_cells(hyperplanes=m, dimension=k)}

    rows = [
        {
            "buckets": x[k],
            "LSH MSE": means[0][k],
            "units of dense, equal FLOPs": equal_width(m),
            "dense MSE, equal FLOPs": means[1][k],
            f"dense MSE, {wide} units": means[2][k],
            "LSH below dense of equal FLOPs": means[0][k] < means[1][k],
            "paper: LSH below dense": x[k] >= _PAPER_FROM if setting == _ON_CUBE["fig3"] else None,
            **cells(m),
        }
        for k, m in enumerate(bits)
    ]
    return Finding(
        rows=rows,
        curves=curves,
        sentence=below_dense(rows) + (f" (paper: from {_PAPER_FROM} on)." if setting == _ON_CUBE["fig3"] else "."),
        axes=("buckets", "mean squared error"),
        facts=setting.facts(request, samples[0]),
    )


def below_dense(rows: Sequence[Mapping[str, Any]]) -> str:
    """At which numbers of buckets figure 3 has LSH below a dense layer of equal FLOPs, without a full stop."""
    below = [row["LSH below dense of equal FLOPs"] for row in rows]
    buckets = [row["buckets"] for row in rows]
    if not any(below):
        return "LSH is not below a dense layer of equal FLOPs at any of these numbers of buckets"
    since = below.index(True)
    where = (
        f"from {buckets[since]} buckets on"
        if all(below[since:])
        else f"at {' and '.join(str(n) for n, yes in zip(buckets, below, strict=True) if yes)} buckets only"
    )
    return f"LSH is below a dense layer of equal inference FLOPs {where}"


def fig4(request: Request, setting: Setting) -> Finding:
    """Dense, random hash, DSM and LSH together."""
    actives = (16, 32) if request.quick else (64, 128, 256)
    samples = setting.samples(request, 3000 if request.quick else 40000)

    def control(s: int, seed: int) -> DSM:
        bottom = masked_network(4 * s, s, seed=seed).bottom
        return DSM(RandomHash(FEATURES, 4 * s, active=s, seed=seed), torch.zeros(1, 4 * s), bottom=bottom)

    models: dict[str, Callable[[int, int, Sample], float]] = {
        "dense": lambda s, seed, sample: dense_error(sample, s, seed),
        "random hash, 4x units": lambda s, seed, sample: mean_squared_error(control(s, seed), sample),
        "DSM, 4x units": lambda s, seed, sample: mean_squared_error(masked_network(4 * s, s, seed=seed), sample),
        "LSH, a table for 16 units": lambda s, seed, sample: bucket_error(sample, bits=10, tables=s // 16, seed=seed),
    }
    curves, rows = [], []
    for number, (label, measure) in enumerate(models.items()):
        runs = [[measure(s, seed, sample) for s in actives] for seed, sample in enumerate(samples)]
        curves.append(band(label, x=actives, runs=runs))
        rows += [
            {"model": label, "active": s, "MSE": y, "paper": None}
            for s, y in zip(actives, curves[-1]["y"], strict=True)
        ]
        request.advance((number + 1) / len(models), label)
    worse = statistics.mean(curves[1]["y"]) / statistics.mean(curves[0]["y"])
    return Finding(
        rows=rows,
        curves=curves,
        sentence=f"Random hash has {worse:.2f} times the error of dense (paper: worse than dense); "
        f"DSM has {curves[2]['y'][-1] / curves[0]['y'][-1]:.2f} times at {actives[-1]} active units.",
        axes=("active units", "mean squared error"),
        facts=setting.facts(request, samples[0]),
    )


_UNITS_DIFFER = f"{CLOSED_FORM} The curves of the paper are not tabulated."
_SUBSPACE = f"{_UNITS_DIFFER} The paper does not say of which dimension its subspaces are; these have {_DIMENSION}."
_WIDTH_UNKNOWN = "The paper does not say how wide the dense model of this figure is."
_ON_CUBE = {  # the target of the figure that the specification names; the other one follows
    "fig2": Setting(target="hypercube"),
    "fig3": Setting(target="polynomial"),
    "fig4": Setting(target="hypercube"),
}
_FIGURES: dict[str, tuple[str, Callable[[Request, Setting], Finding]]] = {
    "fig2": ("Error over activated units, at several total widths", fig2),
    "fig3": ("Error over the number of LSH buckets", fig3),
    "fig4": ("Dense, random hash, top-k and LSH side by side", fig4),
}


def _experiment(figure: str, setting: Setting) -> Experiment:
    title, run = _FIGURES[figure]
    first, flat = setting == _ON_CUBE[figure], setting.dimension is not None
    place = f", on a subspace of {setting.dimension} dimensions" if flat else ""
    told = " ".join([_SUBSPACE if flat else _UNITS_DIFFER, *([_WIDTH_UNKNOWN] if figure == "fig3" else [])])
    return published(
        name=f"baykal-{figure}" if first else f"baykal-{figure}-{setting.target}" + ("-subspace" if flat else ""),
        title=title if first else f"{title}: the {setting.target} function{place}",
        source=f"{SOURCE}, figure {figure[-1]}",
        differs=told,
        run=lambda request: run(request, setting),
    )


EXPERIMENTS = tuple(
    _experiment(figure, Setting(target=target, dimension=dimension))
    for dimension in (None, _DIMENSION)
    for figure, first in _ON_CUBE.items()
    for target in (first.target, "polynomial" if first.target == "hypercube" else "hypercube")
)
