"""Peng et al.: how much sparser the doubly biased recipe makes a vision transformer, and what each part adds."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

from lazyneuron.experiments.experiment import Finding, Request, published
from lazyneuron.experiments.training.ablation import Ablation
from lazyneuron.experiments.training.trainer import TrainingConfig, Variant
from lazyneuron.experiments.training.vision import vision_task
from lazyneuron.induce import DoublyBiased, Pressure, TargetDensity

_OFF: dict[str, Any] = {"jsrelu": False, "zeroth_bias": False, "norm_floor": None}
_PRESSURE = Pressure(target=TargetDensity(density=0.05))
PUBLISHED = "at least 0.36 in inference, 0.50 in training"
VARIANTS = (
    Variant(name="vanilla"),
    Variant(name="JSReLU", recipe=DoublyBiased(**(_OFF | {"jsrelu": True}))),
    Variant(name="zeroth bias", recipe=DoublyBiased(**(_OFF | {"zeroth_bias": True}))),
    Variant(name="norm floor", recipe=DoublyBiased(**(_OFF | {"norm_floor": 1.0}))),
    Variant(name="all three", recipe=DoublyBiased()),
    Variant(name="pressure alone", pressure=_PRESSURE),
    Variant(name="all three with pressure", recipe=DoublyBiased(), pressure=_PRESSURE),
)
_DIFFERS = (
    "A small transformer in place of ViT-B/16 on ImageNet-1k, 30 epochs of batches of 32 on the digits; Gaussian noise "
    "on the images in place of mixup, cutmix and RandAugment. The published relative cut is read from an abstract that "
    "does not say which sparsity it means."
)


def _run(request: Request) -> Finding:
    # the paper's learning rate, weight decay and smoothing; noise stands for its mixup, cutmix and RandAugment
    batch = 32 if request.data is None else 128
    build = functools.partial(vision_task, request.data, noise=0.5, batch=batch, large=request.large)
    steps = (2 if request.quick else 30) * build().epoch_steps
    config = TrainingConfig(steps=steps, learning_rate=3e-3, weight_decay=0.3, smoothing=0.1)
    return Ablation(
        build=build,
        variants=VARIANTS,
        config=dataclasses.replace(config, evaluations=2) if request.quick else config,
        published={"all three": PUBLISHED},
    ).run(request)


EXPERIMENT = published(
    name="peng-vision",
    title="Doubly biased against vanilla, a vision transformer from scratch, with an ablation",
    source="Peng, Qi, Shi, Gao (2023), arXiv 2309.03004, abstract; Peng et al. (2026), arXiv 2605.25612, abstract",
    differs=_DIFFERS,
    run=_run,
)
