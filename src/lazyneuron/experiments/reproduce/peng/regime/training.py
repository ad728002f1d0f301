"""A training that can be interrupted at any moment and made longer, with a look at the model every so often."""

from __future__ import annotations

import contextlib
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_model, save_model
from torch import Tensor, nn

from lazyneuron.blocks import find_blocks
from lazyneuron.core.errors import MALFORMED, CheckpointError, DataError, DivergedError, said
from lazyneuron.core.record import write_text
from lazyneuron.experiments.reproduce.peng.regime.case import Case, Job, Setting, optimizer_of, task_of, weights_name
from lazyneuron.experiments.reproduce.peng.regime.look import look_at
from lazyneuron.experiments.reproduce.peng.regime.tasks import Endless
from lazyneuron.experiments.training.lora import add_lora_
from lazyneuron.induce import DensityController, Pressure, pre_activations, project_, sparsify_
from lazyneuron.induce.training.pressure import density_of, total_pressure
from lazyneuron.train import Checkpoints, LossGuard

COURSE = "course.json"
LORA_RANK = 16  # a quarter of the width, as 192 of 768
_WATCHED_EVERY = 5  # steps between two looks at the density in training; 25 to 100 in the authors' runs
_SAVED_EVERY_S = 120.0
_Advance = Callable[[float], None]


class Course:
    """What was seen so far; kept in checkpoints, and in a file at each look."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self.settings = dict(settings)
        self.looks: list[dict[str, Any]] = []
        self.diverged: str | None = None
        self._since: dict[str, list[float]] = {"loss": [], "gradient": [], "density": []}

    def saw(self, **values: float) -> None:
        """Note what one step has shown."""
        for name, value in values.items():
            self._since[name].append(value)

    def add(self, look: Mapping[str, Any], *, clip: float) -> None:
        """Note a look at the model, with the means of training since the one before."""
        since = self._since
        squares = _mean([norm * norm for norm in since["gradient"]])
        self.looks.append(
            {
                **look,
                "train_loss": _mean(since["loss"]),
                "train_density": _mean(since["density"]),
                "gradient_norm": None if squares is None else math.sqrt(squares),
                "clipped": _mean([float(norm > clip) for norm in since["gradient"]]),
            }
        )
        self._since = {name: [] for name in since}

    def state_dict(self) -> dict[str, Any]:
        """What has to be kept."""
        return {"settings": self.settings, "looks": self.looks, "since": self._since, "diverged": self.diverged}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take it up again."""
        self.looks, self.diverged = list(state["looks"]), state["diverged"]
        self._since = {name: list(values) for name, values in state["since"].items()}

    def write(self, folder: Path) -> None:
        """Put it beside the checkpoints, for tables."""
        write_text(folder / COURSE, json.dumps({k: v for k, v in self.state_dict().items() if k != "since"}))


def _mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None


def read_course(job: Job) -> dict[str, Any] | None:
    """What is known of a training so far: ``settings``, ``looks`` and ``diverged``; None if it has not begun.

    Raises:
        CheckpointError: the file is damaged, or belongs to another training.
    """
    path = job.folder / COURSE
    if not path.is_file():
        return None
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        settings, _, _ = found["settings"], found["looks"][:0], found["diverged"]
    except MALFORMED as error:
        raise CheckpointError(f"{path} is damaged ({said(error)}); remove it, the checkpoints make it anew.") from error
    if settings != settings_of(job):
        raise CheckpointError(f"{job.folder} holds a training with other settings; choose another folder.")
    return found


def settings_of(job: Job) -> dict[str, Any]:
    """What decides a training, as it stands in its course."""
    found = {**job.case.data(), **job.setting.facts(job.case.kind), "seed": job.seed}
    plain: dict[str, Any] = json.loads(json.dumps(found))
    return plain


def train(job: Job, advance: _Advance) -> dict[str, Any]:
    """Train, go on with a training, or read what is done already.

    Args:
        job: what to train.
        advance: told the share that is done.

    Returns:
        As :func:`read_course`; a training that diverged says so there and is not tried again.

    Raises:
        CheckpointError: the folder holds another training.
        DataError: fine-tuning has no trained model to go on from, or the folder cannot be written.

    Cost: a forward and a backward of a batch for each step that is missing.
    """
    steps, kept = job.case.steps, read_course(job)
    if kept is not None:
        weights = (job.folder / weights_name(steps)).exists()
        if kept["diverged"] or done_in(kept) > steps or (done_in(kept) == steps and weights):
            advance(1.0)
            return kept
    task = task_of(job.case.kind, job.setting, begin=job.case.begin)
    model = _new_model(job, task)
    course = Course(settings_of(job))
    run = _Run(job, task, model, course)
    advance(0.0)
    try:
        run.to_the_end(advance)
    except DivergedError as error:
        course.diverged = str(error)
    course.write(job.folder)
    return {key: course.state_dict()[key] for key in ("settings", "looks", "diverged")}


def done_in(course: Mapping[str, Any]) -> int:
    """Steps until the last look."""
    return int(course["looks"][-1]["step"]) if course["looks"] else 0


def _new_model(job: Job, task: Endless) -> nn.Module:
    """The model as it is before the first step."""
    torch.manual_seed(job.seed)
    model = task.new_model()
    if job.start is not None:
        try:
            load_model(model, job.start)
        except (OSError, SafetensorError, RuntimeError) as error:
            raise DataError(f"Fine-tuning starts from {job.start}, which cannot be read; train it first.") from error
    if job.case.tuning == "lora":
        torch.manual_seed(job.seed)
        add_lora_(model, LORA_RANK)
    if job.case.variant.recipe is not None:
        sparsify_(model, job.case.variant.recipe)
    return model.to(task.device)


class _Run:
    """One training in progress."""

    def __init__(self, job: Job, task: Endless, model: nn.Module, course: Course) -> None:
        self.job, self.task, self.model, self.course = job, task, model, course
        self.setting: Setting = job.setting
        self.case: Case = job.case
        self.clip = job.setting.clip if job.case.clipped else math.inf
        self.blocks = find_blocks(model)
        self.optimizer = optimizer_of(job.case, model, job.setting)
        self.rates = [group["lr"] for group in self.optimizer.param_groups]
        self.pressure: Pressure | None = job.case.variant.pressure
        self.controller = None if self.pressure is None else DensityController(self.pressure.target)
        parts: dict[str, Any] = {"optimizer": self.optimizer, "course": course}
        if self.controller is not None:
            parts["controller"] = self.controller
        self.checkpoints = Checkpoints(job.folder / "checkpoints", model, keep=1, **parts)

    def to_the_end(self, advance: _Advance) -> None:
        """Make the steps that are missing."""
        done, steps = self.checkpoints.resume_(), self.case.steps
        looks, saved = set(self.setting.looks(steps)), time.monotonic()
        guard = LossGuard(self.model, kept=lambda: self.checkpoints.last)
        self.model.train()
        for step in range(done + 1, steps + 1):
            self._step(step, guard)
            if step in looks:
                self.model.eval()
                # found anew: an activation on a ramp is another one at each step
                found = look_at(self.model, self.task, step=step, blocks=find_blocks(self.model))
                self.course.add(found, clip=self.clip)
                self.model.train()
            if step in looks or time.monotonic() - saved > _SAVED_EVERY_S:
                self.checkpoints.save(step)
                self.course.write(self.job.folder)
                saved = time.monotonic()
            advance(step / steps)
        guard.remove()
        if done <= steps:  # else it was made longer than is asked for now
            _save_weights(self.model.eval(), self.job.folder / weights_name(steps))

    def _step(self, step: int, guard: LossGuard) -> None:
        batch = self.task.here(self.task.batch_at(step - 1, self.job.seed))
        rise = min(1.0, step / self.setting.warmup) if self.case.clipped else 1.0
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rise * rate
        smoothing = self.setting.smoothing if self.case.kind == "vision" else 0.0
        with self._watching(step) as caught:
            loss = self.task.losses(self.model, batch, smoothing=smoothing)[0].mean()
        whole = loss + self._penalty(caught, step)
        guard.check(whole, step=step)
        self.optimizer.zero_grad(set_to_none=True)
        whole.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.clip)
        self.optimizer.step()
        if self.case.variant.recipe is not None:
            project_(self.model, step=step)
        self.course.saw(loss=float(loss.detach()), gradient=float(norm))

    @contextlib.contextmanager
    def _watching(self, step: int) -> Iterator[dict[str, Tensor]]:
        if self.pressure is None and (step - 1) % _WATCHED_EVERY:
            yield {}
            return
        with pre_activations(self.blocks) as caught:
            yield caught

    def _penalty(self, caught: dict[str, Tensor], step: int) -> Tensor | float:
        if not caught:
            return 0.0
        if self.pressure is None or self.controller is None:
            self.course.saw(
                density=_mean([density_of(b, caught[b.name]) for b in self.blocks if b.name in caught]) or 0
            )
            return 0.0
        penalty, density = total_pressure(self.pressure, self.blocks, caught=caught, mask=None)
        self.course.saw(density=density)
        return penalty * self.controller.update(density, progress=step / self.case.steps)


def _save_weights(model: nn.Module, path: Path) -> None:
    part = path.with_suffix(".part")
    try:
        save_model(model, str(part))
        part.replace(path)
    except (OSError, SafetensorError) as error:
        raise DataError(f"Cannot write to {path.parent} ({said(error)}); choose another folder.") from error
