"""Peng et al.: how much sparser the doubly biased recipe makes a vision transformer, and what each part adds."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

from lazyneuron.core.record import Record
from lazyneuron.induce import DoublyBiased, Pressure, TargetDensity
from lazyneuron.reproduce.ablation import Ablation
from lazyneuron.reproduce.course import Course, Variant
from lazyneuron.reproduce.experiment import Experiment, Request
from lazyneuron.reproduce.vision import vision_task

_OFF: dict[str, Any] = {"jsrelu": False, "zeroth_bias": False, "norm_floor": None}
PUBLISHED = "at least 0.36 in inference, 0.50 in training"
VARIANTS = (
    Variant(name="vanilla"),
    Variant(name="JSReLU", recipe=DoublyBiased(**(_OFF | {"jsrelu": True}))),
    Variant(name="zeroth bias", recipe=DoublyBiased(**(_OFF | {"zeroth_bias": True}))),
    Variant(name="norm floor", recipe=DoublyBiased(**(_OFF | {"norm_floor": 1.0}))),
    Variant(name="all three", recipe=DoublyBiased()),
    Variant(name="with pressure", recipe=DoublyBiased(), pressure=Pressure(target=TargetDensity(density=0.06))),
)
_DIFFERS = (
    "A transformer of 3 layers and width 64 on 8 x 8 digits in place of ViT-B/16 on ImageNet-1k; no mixup, cutmix or "
    "RandAugment. The published relative cut is read from an abstract that does not say which sparsity it means."
)


def _run(request: Request) -> Record:
    build = functools.partial(vision_task, request.data)
    course = Course(steps=(8 if request.quick else 150) * build().epoch_steps, learning_rate=5e-3)
    return Ablation(
        name="peng-vision",
        build=build,
        variants=VARIANTS,
        course=dataclasses.replace(course, looks=2) if request.quick else course,
        differs=_DIFFERS,
        published={"all three": PUBLISHED},
    ).run(request)


EXPERIMENT = Experiment(
    name="peng-vision",
    title="Doubly biased against vanilla, a vision transformer from scratch, with an ablation",
    source="Peng, Qi, Shi, Gao (2023), arXiv 2309.03004, abstract; Peng et al. (2026), arXiv 2605.25612, abstract",
    differs=_DIFFERS,
    run=_run,
)
