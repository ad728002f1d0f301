"""Training of one variant, resumable, and its model from where it was kept."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lazyneuron.blocks import find_blocks
from lazyneuron.core.record import write_text
from lazyneuron.experiments.reproduce.capacity.tasks import Task, task_of
from lazyneuron.induce import DensityController, Pressure, TargetDensity, pre_activations, sparsify_
from lazyneuron.induce.training.pressure import density_of, total_pressure
from lazyneuron.route import RouteFFN, Switch
from lazyneuron.train import Checkpoints, LossGuard

Kind = Literal["dense", "switch", "lsh", "sparse"]
_BALANCE = 0.01  # of a Switch's load
_FOUND = "found.json"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """One training.

    Attributes:
        task: a name for :func:`lazyneuron.experiments.reproduce.capacity.tasks.task_of`.
        kind: ``"dense"``; ``"switch"`` or ``"lsh"``, routed to one of ``factor`` experts as wide as the block;
            ``"sparse"``, ``factor`` times as wide with a penalty that makes ``1 / factor`` of it fire.
        factor: neurons over those of the plain block.
        hidden: neurons of the plain block.
        steps: of 512 tokens.
        seed: of weights and batches.
        folder: holds a folder for every training.
    """

    task: str
    kind: Kind
    factor: int
    hidden: int
    steps: int
    seed: int
    folder: Path

    @property
    def place(self) -> Path:
        """The folder of this training."""
        return self.folder / f"{self.task}-{self.kind}-{self.factor}x{self.hidden}-{self.steps}-seed{self.seed}"

    def rate(self, step: int) -> float:
        """The learning rate: up in a hundred steps, then constant, and down to 0 in the last fifth."""
        return 2e-3 * min(1.0, (step + 1) / 100, 5 * (1 - step / self.steps))


def new_model(job: Job, task: Task) -> nn.Module:
    """The model of a job with its first weights."""
    torch.manual_seed(job.seed)
    routed = job.kind in ("switch", "lsh")
    model = task.new_model(job.hidden if routed else job.hidden * job.factor)
    if routed:
        recipe = RouteFFN(router=job.kind, experts=job.factor, jitter=0.5, offset=task.offset, seed=job.seed)
        sparsify_(model, recipe)
    return model


def _used(model: nn.Module, task: Task, job: Job) -> list[nn.Parameter]:
    """All parameters but those of blocks that experts compute."""
    if job.kind not in ("switch", "lsh"):
        return list(model.parameters())
    named = [pair for block in task.blocks(model) for pair in block.named_parameters()]
    idle = {id(parameter) for name, parameter in named if "routed" not in name}
    return [parameter for parameter in model.parameters() if id(parameter) not in idle]


class _Push:
    """The penalty of a sparse variant; nothing for the others."""

    def __init__(self, model: nn.Module, job: Job) -> None:
        self._blocks = find_blocks(model) if job.kind == "sparse" else []
        target = TargetDensity(density=1 / job.factor, strength=0.002) if self._blocks else None
        self._pressure = None if target is None else Pressure(target=target)
        self.controller = None if target is None else DensityController(target)
        self._caught: dict[str, Tensor] = {}

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        if self._pressure is None:
            yield
        else:
            with pre_activations(self._blocks) as self._caught:
                yield

    def penalty(self, progress: float) -> Tensor | float:
        if self._pressure is None or self.controller is None:
            return 0.0
        value, density = total_pressure(self._pressure, self._blocks, caught=self._caught, mask=None)
        return self.controller.update(density, progress=progress) * value


def _balance(model: nn.Module) -> Tensor | float:
    found: Tensor | float = 0.0
    for module in model.modules():
        if isinstance(module, Switch) and module.balance_loss is not None:
            found = found + _BALANCE * module.balance_loss
    return found


def _parts(model: nn.Module, task: Task, job: Job) -> tuple[torch.optim.Optimizer, _Push, Checkpoints]:
    optimizer, push = torch.optim.AdamW(_used(model, task, job), lr=2e-3, weight_decay=0.01), _Push(model, job)
    parts: dict[str, Any] = {"optimizer": optimizer}
    if push.controller is not None:
        parts["controller"] = push.controller
    return optimizer, push, Checkpoints(job.place / "checkpoints", model, keep=1, **parts)


def train_and_keep(job: Job, advance: Callable[[float], None]) -> Mapping[str, Any]:
    """Train, or go on, and keep the model; of a model that is there already, what was found.

    Returns:
        ``losses``, pairs of step and held-out loss, and ``densities``, one a block (1 / factor for a routed one: the
        share of its neurons that are computed).

    Raises:
        CheckpointError: the folder holds another training.
        DivergedError: the loss is not finite.
    """
    kept = job.place / _FOUND
    if kept.is_file():
        advance(1.0)
        found: Mapping[str, Any] = json.loads(kept.read_text(encoding="utf-8"))
        return found
    task = task_of(job.task)
    model = new_model(job, task)
    optimizer, push, checkpoints = _parts(model, task, job)
    every, guard = max(1, job.steps // 10), LossGuard(model)
    done = checkpoints.resume_()
    losses = _read(job) if done else []
    for step in range(done, job.steps):
        model.train()
        with push.watching():
            loss = task.loss(model, task.batch(step, seed=job.seed))
        whole = loss + push.penalty(step / job.steps) + _balance(model)
        guard.check(whole, step=step)
        optimizer.zero_grad(set_to_none=True)
        whole.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.param_groups[0]["lr"] = job.rate(step)
        optimizer.step()
        if (step + 1) % every == 0 or step + 1 == job.steps:
            losses = [pair for pair in losses if pair[0] <= step] + [(step + 1, held_out_loss(model, task))]
            job.place.mkdir(parents=True, exist_ok=True)
            write_text(job.place / "losses.json", json.dumps(losses))
            checkpoints.save(step + 1)
        advance((step + 1) / job.steps)
    guard.remove()
    result = {"losses": losses, "densities": _densities(model, task, job)}
    write_text(kept, json.dumps(result))
    return result


def _read(job: Job) -> list[tuple[int, float]]:
    rows: list[tuple[int, float]] = json.loads((job.place / "losses.json").read_text(encoding="utf-8"))
    return rows


@torch.no_grad()
def held_out_loss(model: nn.Module, task: Task) -> float:
    """Of the model in evaluation mode."""
    model.eval()
    return float(task.loss(model, task.held_out))


@torch.no_grad()
def _densities(model: nn.Module, task: Task, job: Job) -> list[float]:
    if job.kind in ("switch", "lsh"):
        return [1 / job.factor] * len(task.blocks(model))
    blocks = find_blocks(model)
    with pre_activations(blocks) as caught:
        held_out_loss(model, task)
    return [density_of(block, caught[block.name]) for block in blocks]


def trained(job: Job) -> nn.Module:
    """The model that :func:`train_and_keep` kept, in evaluation mode."""
    task = task_of(job.task)
    model = new_model(job, task)
    _parts(model, task, job)[2].resume_()
    return model.eval()
