"""Peng et al., fine-tuning: a dense ReLU model is trained first, then goes on with the recipe and its ramps."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable

from lazyneuron.experiments.experiment import Finding, Request, published
from lazyneuron.experiments.reproduce.peng.language import decoder_task
from lazyneuron.experiments.reproduce.peng.vision import PUBLISHED
from lazyneuron.experiments.training.ablation import Ablation
from lazyneuron.experiments.training.task import Task
from lazyneuron.experiments.training.trainer import TrainingConfig, Variant
from lazyneuron.experiments.training.vision import vision_task
from lazyneuron.induce import DoublyBiased, Pressure, TargetDensity

_DIFFERS = (
    "No LoRA: every weight is trained. A small transformer on digits or on Python's standard library in place of "
    "ViT-B/16 on ImageNet-1k and T5-base on C4. The published relative cut is read from an abstract that does not say "
    "which sparsity it means."
)
_SOURCE = "Peng, Qi, Shi, Gao (2023), arXiv 2309.03004, abstract; Peng et al. (2026), arXiv 2605.25612, abstract"


def variants(steps: int, density: float, strength: float) -> tuple[Variant, ...]:
    """The dense model trained on, the recipe with ramps over a third of the steps, and a penalty without it."""
    recipe = DoublyBiased.for_finetuning(max(1, steps // 3))
    pressure = Pressure(target=TargetDensity(density=density, strength=strength))
    return (
        Variant(name="dense, trained on"),
        Variant(name="all three", recipe=recipe),
        Variant(name=f"pressure to {density:g}", pressure=pressure),
    )


def _run(
    request: Request,
    *,
    build: Callable[[], Task],
    dense: TrainingConfig,
    config: TrainingConfig,
    density: float,
    strength: float,
) -> Finding:
    if request.large:
        dense, config = dense.for_large(), config.for_large()
    if request.quick:
        dense, config = (dataclasses.replace(c, steps=24, warmup=0, evaluations=2) for c in (dense, config))
    return Ablation(
        build=build,
        variants=variants(config.steps, density, strength),
        config=config,
        dense=dense,
        published={"all three": PUBLISHED},
    ).run(request)


def _run_vision(request: Request) -> Finding:
    return _run(
        request,
        build=functools.partial(vision_task, request.data, noise=0.5, batch=32, large=request.large),
        dense=TrainingConfig(steps=1000, learning_rate=3e-3, weight_decay=0.3, smoothing=0.1),
        config=TrainingConfig(steps=600, learning_rate=2e-3, weight_decay=0.3, smoothing=0.1),
        density=0.05,
        strength=1.0,
    )


def _run_language(request: Request) -> Finding:
    return _run(
        request,
        build=functools.partial(decoder_task, request.data, large=request.large),
        dense=TrainingConfig(steps=800, learning_rate=3e-3, warmup=40),
        config=TrainingConfig(steps=500, learning_rate=2e-3, warmup=20),
        density=0.05,
        strength=0.1,
    )


EXPERIMENTS = (
    published(
        name="peng-finetune-vision",
        title="Doubly biased against training on, a vision transformer fine-tuned",
        source=_SOURCE,
        differs=_DIFFERS,
        run=_run_vision,
    ),
    published(
        name="peng-finetune-language",
        title="Doubly biased against training on, a decoder fine-tuned",
        source=_SOURCE,
        differs=_DIFFERS,
        run=_run_language,
    ),
)
