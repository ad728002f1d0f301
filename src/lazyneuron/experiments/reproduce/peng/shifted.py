"""Peng et al., validation: training moves pre-activations where the derivative is zero, whatever the output there."""

from __future__ import annotations

import dataclasses
import functools
import statistics
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import nn

from lazyneuron.blocks import MLPBlock, find_blocks, replace_activation_
from lazyneuron.core.undo import transaction
from lazyneuron.experiments.experiment import Finding, Request, band, published
from lazyneuron.experiments.jobs import run_cases
from lazyneuron.experiments.training.task import Task
from lazyneuron.experiments.training.trainer import TrainingConfig, Variant, train
from lazyneuron.experiments.training.vision import vision_task
from lazyneuron.induce import DoublyBiased, ShiftedActivation

CORNERS = ((1.6, 1.6), (1.6, -1.6), (-1.6, 1.6), (-1.6, -1.6))
Base = Literal["squared_relu", "jsrelu"]
_NAMES: dict[Base, str] = {"squared_relu": "squared ReLU", "jsrelu": "JSReLU"}
# as the authors' tables have it; unclipped, and the norm is left alone
ZEROTH_BIAS = DoublyBiased(jsrelu=False, norm_floor=None, bound=None)
_DIFFERS = (
    "A transformer of 3 layers and width 64 on 8 x 8 digits in place of ViT-B/16 on CIFAR-10 at 224 pixels; a larger "
    "learning rate over fewer steps. The authors train with a zeroth bias that has no bound; here with and without. "
    "The paper publishes no numbers for it."
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """What is trained.

    Attributes:
        corner: (dx, dy).
        base: the rectifier that is shifted.
        zeroth_bias: whether blocks have one.
    """

    corner: tuple[float, float]
    base: Base = "squared_relu"
    zeroth_bias: bool = False

    @property
    def activation(self) -> ShiftedActivation:
        """The function in every block."""
        return ShiftedActivation(self.base, dx=self.corner[0], dy=self.corner[1])


CASES = tuple(
    Case(corner=corner, base=base, zeroth_bias=bias) for base in _NAMES for bias in (False, True) for corner in CORNERS
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShiftedJob:
    """One training with shifted activations.

    Attributes:
        build: makes the task.
        config, seed: of the training.
        case: what is trained.
    """

    build: Callable[[], Task]
    config: TrainingConfig
    case: Case
    seed: int


def _run(request: Request) -> Finding:
    build = functools.partial(vision_task, request.data)
    task = build()
    epochs, evaluations = (6, 3) if request.quick else (60, 12)
    config = TrainingConfig(steps=epochs * task.epoch_steps, learning_rate=2e-3, evaluations=evaluations)

    def job(case: Case, seed: int) -> ShiftedJob:
        return ShiftedJob(build=build, config=config, case=case, seed=seed)

    found = run_cases(
        train_shifted, CASES, job=job, seeds=request.seeds, advance=request.advance, folder=request.folder
    )
    runs = dict(zip(CASES, found, strict=True))
    rows = [_row(case, each) for case, each in runs.items()]
    rose = sum(row["share in flat interval, end"] > row["share in flat interval, start"] for row in rows)
    return Finding(
        rows=rows,
        curves=[_rise(base, alike, runs, task.epoch_steps) for base in _NAMES for alike in (True, False)],
        sentence=f"The share of pre-activations in the zero-derivative interval rises in {rose} of {len(rows)} cases, "
        f"although the output there is 1.6 or -1.6 and not 0; means of {request.seeds} seeds.",
        axes=("epoch", "rise of the share where the derivative is zero"),
        facts={**dataclasses.asdict(config), "data": task.name, "seeds": request.seeds, "half_interval": 1.5},
    )


def _rise(base: Base, alike: bool, runs: dict[Case, list[Any]], epoch_steps: int) -> dict[str, Any]:
    """The share in the interval less that of the beginning: over corners of like or unlike signs, biases and seeds."""
    chosen = [
        points
        for case, found in runs.items()
        if case.base == base and (case.corner[0] == case.corner[1]) == alike
        for points in found
    ]
    return band(
        f"{_NAMES[base]}, dx = {'dy' if alike else '-dy'}",
        x=[point["step"] / epoch_steps for point in chosen[0]],
        runs=[[point["flat"] - points[0]["flat"] for point in points] for points in chosen],
    )


def train_shifted(job: ShiftedJob, advance: Callable[[float], None]) -> list[dict[str, float]]:
    """Train a model with shifted activations, and see where its pre-activations lie."""
    torch.manual_seed(job.seed)
    task = job.build()
    model = task.new_model()
    blocks = find_blocks(model)
    with transaction(model, "shifted") as change:
        for block in blocks:
            replace_activation_(change, block, job.case.activation)
    points = [_state(model.eval(), task, blocks, job.case, 0)]

    def on_evaluation(model: nn.Module, step: int) -> None:
        points.append(_state(model, task, blocks, job.case, step))

    train(
        task,
        job.config,
        variant=Variant(name="shifted", recipe=ZEROTH_BIAS if job.case.zeroth_bias else None),
        seed=job.seed,
        start=model,
        advance=advance,
        on_evaluation=on_evaluation,
        measure_density=False,
    )
    return points


@torch.no_grad()
def _state(model: nn.Module, task: Task, blocks: Sequence[MLPBlock], case: Case, step: int) -> dict[str, float]:
    activation, dy = case.activation, case.corner[1]
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


def _row(case: Case, found: Sequence[list[dict[str, float]]]) -> dict[str, Any]:
    def mean(key: str, at: int) -> float:
        return statistics.mean(points[at][key] for points in found)

    return {
        "rectifier": _NAMES[case.base],
        "zeroth bias": "yes" if case.zeroth_bias else "no",
        "dx": case.corner[0],
        "dy": case.corner[1],
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
