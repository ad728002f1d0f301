"""Peng et al., validation: training moves pre-activations where the derivative is zero, whatever the output there."""

from __future__ import annotations

import dataclasses
import functools
import statistics
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from lazyneuron.blocks import MLPBlock, find_blocks, replace_activation_
from lazyneuron.core.undo import transaction
from lazyneuron.experiments.experiment import Finding, Request, band, published
from lazyneuron.experiments.jobs import run_cases
from lazyneuron.experiments.training.task import Task
from lazyneuron.experiments.training.trainer import TrainingConfig, Variant, train
from lazyneuron.experiments.training.vision import vision_task
from lazyneuron.induce import ShiftedActivation

CORNERS = ((1.6, 1.6), (1.6, -1.6), (-1.6, 1.6), (-1.6, -1.6))
_DIFFERS = (
    "A transformer of 3 layers and width 64 on 8 x 8 digits in place of ViT-B/16 on CIFAR-10 at 224 pixels; no "
    "zeroth bias; a larger learning rate over fewer steps. The paper publishes no numbers for it."
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShiftedJob:
    """One training with shifted activations.

    Attributes:
        build: makes the task.
        config, seed: of the training.
        corner: (dx, dy).
    """

    build: Callable[[], Task]
    config: TrainingConfig
    corner: tuple[float, float]
    seed: int


def _run(request: Request) -> Finding:
    build = functools.partial(vision_task, request.data)
    task = build()
    epochs, evaluations = (6, 3) if request.quick else (60, 12)
    config = TrainingConfig(steps=epochs * task.epoch_steps, learning_rate=2e-3, evaluations=evaluations)

    def job(corner: tuple[float, float], seed: int) -> ShiftedJob:
        return ShiftedJob(build=build, config=config, corner=corner, seed=seed)

    found = run_cases(train_shifted, CORNERS, job=job, seeds=request.seeds, advance=request.advance)
    runs = dict(zip(CORNERS, found, strict=True))
    rows = [_row(corner, runs[corner]) for corner in CORNERS]
    rose = sum(row["share in flat interval, end"] > row["share in flat interval, start"] for row in rows)
    return Finding(
        rows=rows,
        curves=[
            band(
                f"dx = {corner[0]:+g}, dy = {corner[1]:+g}",
                x=[point["step"] / task.epoch_steps for point in found[0]],
                runs=[[point["flat"] for point in points] for points in found],
            )
            for corner, found in runs.items()
        ],
        sentence=f"The share of pre-activations in the zero-derivative interval rises in {rose} of {len(rows)} cases, "
        f"although the output there is 1.6 or -1.6 and not 0; means of {request.seeds} seeds.",
        axes=("epoch", "share of pre-activations where the derivative is zero"),
        facts={**dataclasses.asdict(config), "data": task.name, "seeds": request.seeds, "half_interval": 1.5},
    )


def train_shifted(job: ShiftedJob, advance: Callable[[float], None]) -> list[dict[str, float]]:
    """Train a model with shifted activations, and see where its pre-activations lie."""
    torch.manual_seed(job.seed)
    task = job.build()
    model = task.new_model()
    dx, dy = job.corner
    blocks = find_blocks(model)
    with transaction(model, "shifted") as change:
        for block in blocks:
            replace_activation_(change, block, ShiftedActivation("squared_relu", dx=dx, dy=dy))
    points = [_state(model.eval(), task, blocks, job.corner, 0)]

    def on_evaluation(model: nn.Module, step: int) -> None:
        points.append(_state(model, task, blocks, job.corner, step))

    train(
        task,
        job.config,
        variant=Variant(name="shifted"),
        seed=job.seed,
        start=model,
        advance=advance,
        on_evaluation=on_evaluation,
        measure_density=False,
    )
    return points


@torch.no_grad()
def _state(
    model: nn.Module, task: Task, blocks: Sequence[MLPBlock], corner: tuple[float, float], step: int
) -> dict[str, float]:
    dx, dy = corner
    activation = ShiftedActivation("squared_relu", dx=dx, dy=dy)
    flat, near, slopes = [], [], []

    def hook(_: nn.Module, __: Any, p: torch.Tensor) -> None:
        inside = activation.flat_interval.contains(p)
        flat.append(float(inside.float().mean()))
        near.append(float(((activation(p) - dy).abs() < 1e-6).float().mean()))
        slopes.append(float(activation.derivative(p).square().mean()))

    handles = [block.up.module.register_forward_hook(hook) for block in blocks]
    try:
        right = torch.cat([task.losses(model, batch)[1] for batch in task.held_out])
    finally:
        for handle in handles:
            handle.remove()
    return {
        "step": step,
        "flat": statistics.mean(flat),
        "near_dy": statistics.mean(near),
        "derivative_square": statistics.mean(slopes),
        "accuracy": float(right.float().mean()),
    }


def _row(corner: tuple[float, float], found: Sequence[list[dict[str, float]]]) -> dict[str, Any]:
    def mean(key: str, at: int) -> float:
        return statistics.mean(points[at][key] for points in found)

    return {
        "dx": corner[0],
        "dy": corner[1],
        "share in flat interval, start": mean("flat", 0),
        "share in flat interval, end": mean("flat", -1),
        "outputs within 1e-6 of dy, end": mean("near_dy", -1),
        "mean squared derivative, start": mean("derivative_square", 0),
        "mean squared derivative, end": mean("derivative_square", -1),
        "accuracy": mean("accuracy", -1),
        "paper": None,
    }


EXPERIMENT = published(
    name="peng-shifted",
    title="Pre-activations move into the zero-derivative interval, wherever it lies and whatever the output there",
    source="Peng, Qi, Shi, Gao (2023), arXiv 2309.03004, section 6; Peng et al. (2026), arXiv 2605.25612, section V",
    differs=_DIFFERS,
    run=_run,
)
