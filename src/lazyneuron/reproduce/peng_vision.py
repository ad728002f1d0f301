"""Peng et al.: how much sparser the doubly biased recipe makes a vision transformer, and what each part adds."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Sequence
from typing import Any

from lazyneuron.core.record import Record
from lazyneuron.induce import DoublyBiased
from lazyneuron.reproduce.classifier import Point, Regime, as_data, train_classifier
from lazyneuron.reproduce.experiment import Experiment, Request, record_of
from lazyneuron.reproduce.images import load_images

_OFF: dict[str, Any] = {"jsrelu": False, "zeroth_bias": False, "norm_floor": None}
VARIANTS: dict[str, DoublyBiased | None] = {
    "vanilla": None,
    "JSReLU": DoublyBiased(**(_OFF | {"jsrelu": True})),
    "zeroth bias": DoublyBiased(**(_OFF | {"zeroth_bias": True})),
    "norm floor": DoublyBiased(**(_OFF | {"norm_floor": 1.0})),
    "all three": DoublyBiased(),
}
_DIFFERS = (
    "A transformer of 3 layers and width 64 on 8 x 8 digits in place of ViT-B/16 on ImageNet-1k; no mixup, cutmix or "
    "RandAugment. The published relative cut is read from an abstract that does not say which sparsity it means."
)
_PUBLISHED = "at least 0.36 in inference, 0.50 in training"


def regime_for(side: int, *, quick: bool) -> Regime:
    """The regime in which sparsity emerges on small data: large steps, no weight decay, many epochs."""
    regime = Regime() if side <= 8 else Regime(patch=4, width=128, hidden=512, epochs=30, learning_rate=2e-3)
    return dataclasses.replace(regime, epochs=8, looks=2) if quick else regime


def run(request: Request) -> Record:
    """Train every variant with every seed."""
    images = load_images(request.data)
    regime = regime_for(images.train.shape[-1], quick=request.quick)
    runs: dict[str, list[tuple[Point, ...]]] = {name: [] for name in VARIANTS}
    total, done = len(VARIANTS) * request.seeds, 0
    for seed in range(request.seeds):
        for name, recipe in VARIANTS.items():

            def advance(share: float, done: int = done, note: str = f"{name}, seed {seed}") -> None:
                request.advance((done + share) / total, note)

            _, points = train_classifier(images, regime, recipe=recipe, seed=seed, advance=advance)
            runs[name].append(points)
            done += 1
    rows = [_row(name, runs[name], runs["vanilla"]) for name in VARIANTS]
    cut = rows[-1]["relative cut"]
    return record_of(
        "peng-vision",
        rows=rows,
        curves=[_curve(name, found) for name, found in runs.items()],
        says=(
            f"All three modules cut the share of neurons that fire by {cut:.2f} of the vanilla model's "
            f"({rows[0]['density']:.3f} to {rows[-1]['density']:.3f}), with an accuracy of {rows[-1]['accuracy']:.3f} "
            f"against {rows[0]['accuracy']:.3f}; means of {request.seeds} seeds."
        ),
        facts={
            **dataclasses.asdict(regime),
            "data": images.name,
            "seeds": request.seeds,
            "quick": request.quick,
            "runs": {name: [as_data(points) for points in found] for name, found in runs.items()},
        },
        differs=_DIFFERS,
        axes=("epoch", "density on the test set"),
    )


def _row(name: str, found: Sequence[tuple[Point, ...]], vanilla: Sequence[tuple[Point, ...]]) -> dict[str, Any]:
    last, before = [points[-1] for points in found], [points[-1] for points in vanilla]
    cuts = [1 - a.density / b.density for a, b in zip(last, before, strict=True)]
    training = [_mean_train(a) for a in found], [_mean_train(b) for b in vanilla]
    return {
        "variant": name,
        "density": statistics.mean(p.density for p in last),
        "spread": max(p.density for p in last) - min(p.density for p in last),
        "accuracy": statistics.mean(p.accuracy for p in last),
        "loss": statistics.mean(p.loss for p in last),
        "relative cut": statistics.mean(cuts),
        "relative cut in training": 1 - statistics.mean(training[0]) / statistics.mean(training[1]),
        "paper": _PUBLISHED if name == "all three" else None,
    }


def _mean_train(points: tuple[Point, ...]) -> float:
    return statistics.mean(p.train_density for p in points)


def _curve(name: str, found: Sequence[tuple[Point, ...]]) -> dict[str, Any]:
    columns = list(zip(*found, strict=True))
    return {
        "label": name,
        "x": [column[0].epoch for column in columns],
        "y": [statistics.mean(p.density for p in column) for column in columns],
        "low": [min(p.density for p in column) for column in columns],
        "high": [max(p.density for p in column) for column in columns],
    }


EXPERIMENT = Experiment(
    name="peng-vision",
    title="Doubly biased against vanilla, a vision transformer from scratch, with an ablation",
    source="Peng, Qi, Shi, Gao (2023), arXiv 2309.03004, abstract; Peng et al. (2026), arXiv 2605.25612, abstract",
    differs=_DIFFERS,
    run=run,
)
