"""Peng et al.: the density identity and the spectra over training, vanilla beside doubly biased."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from lazyneuron.core.record import Record
from lazyneuron.explain import explain
from lazyneuron.induce import DoublyBiased
from lazyneuron.reproduce.classifier import Regime, train_classifier
from lazyneuron.reproduce.experiment import Experiment, Request, record_of
from lazyneuron.reproduce.images import Images, load_images

_VARIANTS: dict[str, DoublyBiased | None] = {"vanilla": None, "doubly biased": DoublyBiased()}
_DIFFERS = (
    "A transformer of 3 layers and width 64 on 8 x 8 digits in place of ViT-B/16 on ImageNet-1k; gradients per "
    "sample, unscaled "
    "and of the unsmoothed loss; the coefficient holds the squared derivative, which the authors' code leaves "
    "out. Their printed "
    "values carry their loss scale, so only the course is comparable: 13.5, 2.4, 490, 9.3, 4.8 for AS_K of the "
    "vanilla model at "
    "steps 25, 150, 1250, 2125 and 187500."
)
_FIELDS = ("derivative_density", "identity_density", "identity_residual", "as_up", "as_down")


def run(request: Request) -> Record:
    """Train both models with every seed and look into them on the way."""
    images = load_images(request.data)
    regime = Regime(epochs=8, looks=4) if request.quick else Regime(epochs=100, looks=10)
    total, done = len(_VARIANTS) * request.seeds, 0
    runs: dict[str, list[list[dict[str, float]]]] = {name: [] for name in _VARIANTS}
    for seed in range(request.seeds):
        for name, recipe in _VARIANTS.items():
            points: list[dict[str, float]] = []

            def advance(share: float, done: int = done, note: str = f"{name}, seed {seed}") -> None:
                request.advance((done + share) / total, note)

            def on_look(model: nn.Module, epoch: int, points: list[dict[str, float]] = points) -> None:
                points.append({"epoch": epoch, **_look(model, images)})

            train_classifier(images, regime, recipe=recipe, seed=seed, advance=advance, on_look=on_look)
            runs[name].append(points)
            done += 1
    rows = [_row(name, runs[name]) for name in _VARIANTS]
    worst = max(p["identity_residual"] for found in runs.values() for points in found for p in points)
    return record_of(
        "peng-identity",
        rows=rows,
        curves=[_curve(name, found) for name, found in runs.items()],
        says=(
            f"The identity holds at every checkpoint (largest relative residual {worst:.0e}), and over training "
            f"the augmented "
            f"flatness AS_K moves from {rows[0]['AS_K, first']:.3g} to {rows[0]['AS_K, last']:.3g} in the vanilla "
            f"model, from "
            f"{rows[1]['AS_K, first']:.3g} to {rows[1]['AS_K, last']:.3g} in the doubly biased one."
        ),
        facts={**dataclasses.asdict(regime), "data": images.name, "seeds": request.seeds, "quick": request.quick},
        differs=_DIFFERS,
        axes=("epoch", "density of derivatives"),
    )


def _look(model: nn.Module, images: Images) -> dict[str, float]:
    batches = [
        {"pixel_values": x, "labels": y}
        for x, y in zip(torch.split(images.test, 128), torch.split(images.test_labels, 128), strict=True)
    ]
    report = explain(model, batches, lambda output, b: F.cross_entropy(output.logits, b["labels"], reduction="none"))
    found = {key: statistics.mean(getattr(block, key) for block in report.blocks) for key in _FIELDS}
    found["identity_residual"] = max(block.identity_residual for block in report.blocks)
    found["singular_ratio"] = statistics.mean(s.concentration.singular_ratio for s in report.spectra)
    found["mass_ratio"] = statistics.mean(s.concentration.mass_ratio for s in report.spectra)
    found["marchenko_pastur_distance"] = statistics.mean(s.fit.distance for s in report.spectra)
    return found


def _row(name: str, found: Sequence[list[dict[str, float]]]) -> dict[str, Any]:
    def mean(key: str, at: int) -> float:
        return statistics.mean(points[at][key] for points in found)

    return {
        "variant": name,
        "derivative density, last": mean("derivative_density", -1),
        "by the identity": mean("identity_density", -1),
        "AS_K, first": mean("as_up", 0),
        "AS_K, last": mean("as_up", -1),
        "singular value ratio, first": mean("singular_ratio", 0),
        "singular value ratio, last": mean("singular_ratio", -1),
        "80 % of eigenvalues within, last": mean("mass_ratio", -1),
        "distance from Marchenko-Pastur, first": mean("marchenko_pastur_distance", 0),
        "distance from Marchenko-Pastur, last": mean("marchenko_pastur_distance", -1),
        "paper": None,
    }


def _curve(name: str, found: Sequence[list[dict[str, float]]]) -> dict[str, Any]:
    columns = list(zip(*found, strict=True))
    return {
        "label": name,
        "x": [column[0]["epoch"] for column in columns],
        "y": [statistics.mean(p["derivative_density"] for p in column) for column in columns],
        "low": [min(p["derivative_density"] for p in column) for column in columns],
        "high": [max(p["derivative_density"] for p in column) for column in columns],
    }


EXPERIMENT = Experiment(
    name="peng-identity",
    title="The density identity, flatness and spectra over training",
    source="Peng, Zhang, Qi, Gao, Shi (2026), arXiv 2605.25612; Peng, Qi, Shi, Gao (2023), arXiv 2309.03004",
    differs=_DIFFERS,
    run=run,
)
