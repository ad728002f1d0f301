"""Training one model of an experiment, with a recipe or without, and watching how densely it fires."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lazyneuron.blocks import find_blocks
from lazyneuron.experiments.training.task import Task
from lazyneuron.induce import DensityController, Pressure, parameter_groups, pre_activations, project_, sparsify_
from lazyneuron.induce.training.pressure import total_pressure
from lazyneuron.measure import measure
from lazyneuron.train import LossGuard


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """How to train; sparsity depends on it, so every table names its own.

    Attributes:
        steps: of AdamW.
        learning_rate: the largest.
        decay: how it falls after the warm-up: ``"cosine"`` to 0, ``"root"`` with the inverse root of the steps, as
            T5's, or not at all, ``"none"``.
        weight_decay: on matrices.
        warmup: steps in which the learning rate rises.
        smoothing: of labels.
        clip: largest norm of the gradient.
        evaluations: on held-out data, on the way.
    """

    steps: int
    learning_rate: float
    decay: Literal["cosine", "root", "none"] = "cosine"
    weight_decay: float = 0.0
    warmup: int = 0
    smoothing: float = 0.0
    clip: float = 1.0
    evaluations: int = 10

    def rate(self, step: int) -> float:
        """The learning rate of a step, counted from 0."""
        if step < self.warmup:
            return self.learning_rate * (step + 1) / self.warmup
        if self.decay == "none":
            return self.learning_rate
        if self.decay == "root":
            return self.learning_rate * math.sqrt((self.warmup + 1) / (step + 1))
        way = (step - self.warmup) / max(1, self.steps - self.warmup)
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * way))

    def for_large(self) -> TrainingConfig:
        """For a wide model: ten times the steps, a third of the rate."""
        return dataclasses.replace(
            self, steps=10 * self.steps, warmup=10 * self.warmup, learning_rate=self.learning_rate / 3
        )

    @property
    def evaluation_steps(self) -> list[int]:
        """Steps after which to evaluate."""
        return sorted({max(1, round(self.steps * k / self.evaluations)) for k in range(1, self.evaluations + 1)})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Variant:
    """What is done to a model of an experiment.

    Attributes:
        name: as in tables.
        recipe: what :func:`lazyneuron.sparsify_` is given; None leaves the architecture.
        pressure: a penalty with its target density; None trains on the loss alone.
    """

    name: str
    recipe: Any = None
    pressure: Pressure | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The state after some steps, on held-out data unless it says otherwise.

    Attributes:
        step: steps done.
        density: mean over blocks of the share of nonzero hidden activations.
        train_density: the same on some training data.
        accuracy: share of examples or tokens whose most likely class is right.
        loss: mean cross-entropy without smoothing.
        blocks: density of each block.
    """

    step: int
    density: float
    train_density: float
    accuracy: float
    loss: float
    blocks: tuple[float, ...]


def train(
    task: Task,
    config: TrainingConfig,
    *,
    variant: Variant,
    seed: int,
    start: nn.Module | None = None,
    advance: Callable[[float], None] = lambda share: None,
    on_evaluation: Callable[[nn.Module, int], None] = lambda model, step: None,
    measure_density: bool = True,
) -> tuple[nn.Module, tuple[Evaluation, ...]]:
    """Train one model.

    Args:
        task: what is learned.
        config: how.
        variant: what is done for sparsity.
        seed: of weights and batches.
        start: a trained model to go on from, changed in place, instead of a new one.
        advance: told the share of the training done.
        on_evaluation: called with the model in evaluation mode and the steps done, at every evaluation.
        measure_density: whether to measure; without, only ``on_evaluation`` does.

    Returns:
        The model in evaluation mode, and what was measured on the way, the result last.

    Raises:
        DivergedError: the loss is not finite, with the first block where the numbers broke; the model keeps the weights
            from before that step.

    Cost: a forward and a backward of one batch for each step.
    """
    torch.manual_seed(seed)
    model = (task.new_model() if start is None else start).to(task.device)
    if variant.recipe is not None:
        sparsify_(model, variant.recipe)
    optimizer = torch.optim.AdamW(parameter_groups(model, config.weight_decay), lr=config.learning_rate)
    penalty = None if variant.pressure is None else _Penalty(variant.pressure, model)
    evaluations: list[Evaluation] = []
    model.train()
    guard, evaluation_steps = LossGuard(model), set(config.evaluation_steps)
    for step, batch in zip(range(1, config.steps + 1), task.batches(torch.Generator().manual_seed(seed)), strict=False):
        for group in optimizer.param_groups:
            group["lr"] = config.rate(step - 1)
        with contextlib.nullcontext() if penalty is None else penalty.recording():
            loss = task.losses(model, task.here(batch), smoothing=config.smoothing)[0].mean()
            if penalty is not None:
                loss = loss + penalty.value(progress=step / config.steps)
        guard.check(loss, step=step)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), config.clip)
        optimizer.step()
        if variant.recipe is not None:
            project_(model, step=step)
        advance(step / config.steps)
        if step in evaluation_steps:
            model.eval()
            if measure_density:
                evaluations.append(evaluate(model, task, step=step))
            on_evaluation(model, step)
            model.train()
    guard.remove()
    return model.eval(), tuple(evaluations)


class _Penalty:
    """A penalty on a model's blocks whose strength follows the density seen."""

    def __init__(self, pressure: Pressure, model: nn.Module) -> None:
        self._pressure, self._blocks = pressure, find_blocks(model)
        self._controller = DensityController(pressure.target)
        self._caught: dict[str, Tensor] = {}

    @contextlib.contextmanager
    def recording(self) -> Any:
        with pre_activations(self._blocks) as self._caught:
            yield

    def value(self, *, progress: float) -> Tensor:
        penalty, density = total_pressure(self._pressure, self._blocks, caught=self._caught, mask=None)
        return penalty * self._controller.update(density, progress=progress)


@torch.no_grad()
def evaluate(model: nn.Module, task: Task, *, step: int) -> Evaluation:
    """Measure density and quality of a model that is in evaluation mode."""
    held_out, probe = ([task.here(batch) for batch in batches] for batches in (task.held_out, task.probe))
    blocks = find_blocks(model)
    report = measure(model, held_out, blocks=blocks)
    losses, right = zip(*(task.losses(model, batch) for batch in held_out), strict=True)
    return Evaluation(
        step=step,
        density=report.density,
        train_density=measure(model, probe, blocks=blocks).density,
        accuracy=float(torch.cat(right).double().mean()),
        loss=float(torch.cat(losses).mean()),
        blocks=tuple(block.density or 0.0 for block in report.blocks),
    )
