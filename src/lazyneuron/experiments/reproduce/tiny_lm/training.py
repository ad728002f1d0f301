"""Training one model, with checkpoints: a run that was killed goes on where it was."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lazyneuron.blocks import find_blocks
from lazyneuron.core.errors import CheckpointError, DataError
from lazyneuron.core.record import write_text
from lazyneuron.core.undo import restore_
from lazyneuron.experiments.reproduce.tiny_lm.model import Gate, Size, new_model, quiet
from lazyneuron.experiments.reproduce.tiny_lm.text import batch_of, read_text, tokenizer_of
from lazyneuron.induce import DensityController, Pressure, TargetDensity, pre_activations
from lazyneuron.induce.training.pressure import density_of, total_pressure
from lazyneuron.train import Checkpoints, LossGuard, pack_activations_

TRAINED = "trained.json"  # written last: a folder with it holds a trained model
_WATCHED_EVERY = 20  # steps between two looks at the density of a model without pressure


@dataclasses.dataclass(frozen=True, kw_only=True)
class Schedule:
    """How to train.

    Attributes:
        steps: of the optimisers.
        batch: windows in a step.
        learning_rate: the largest of AdamW, which moves embedding and norms.
        matrix_rate: the largest of Muon, which moves all matrices between them.
        warmup: steps in which both rise; they fall with a cosine to a twentieth afterwards.
        weight_decay: on matrices.
        clip: largest norm of the gradient.
        every: steps between two checkpoints.
    """

    steps: int = 1400
    batch: int = 4
    learning_rate: float = 0.004
    matrix_rate: float = 0.007
    warmup: int = 100
    weight_decay: float = 0.1
    clip: float = 1.0
    every: int = 100

    def rate(self, step: int) -> float:
        """The share of the largest learning rates at a step, counted from 0."""
        if step < self.warmup:
            return (step + 1) / self.warmup
        way = (step - self.warmup) / max(1, self.steps - self.warmup)
        return 0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * way))


PRESSURE = Pressure(target=TargetDensity(density=0.05, reach=0.75, strength=0.05))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """One training.

    Attributes:
        name: of the variant.
        gate: the model's activation.
        size, schedule: of model and training.
        pressure: what makes neurons silent; None trains on the loss alone.
        seed: of weights and order.
        text: folder with the token ids.
        folder: for the checkpoints and the trained model.
        pack: keep for the backward only what fires.
    """

    name: str
    gate: Gate
    size: Size
    schedule: Schedule
    pressure: Pressure | None
    seed: int
    text: Path
    folder: Path
    pack: bool = False


def optimizers(model: Any, schedule: Schedule) -> dict[str, torch.optim.Optimizer]:
    """Muon for the matrices between embedding and head, AdamW for these and for vectors."""
    inner = [p for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name]
    known = {id(p) for p in inner}
    outer = [p for p in model.parameters() if id(p) not in known]
    muon = torch.optim.Muon(
        inner, lr=schedule.matrix_rate, weight_decay=schedule.weight_decay, adjust_lr_fn="match_rms_adamw"
    )
    adamw = torch.optim.AdamW(outer, lr=schedule.learning_rate, betas=(0.9, 0.95), weight_decay=0.0)
    found: dict[str, torch.optim.Optimizer] = {"muon": muon, "adamw": adamw}
    for optimizer in found.values():
        for group in optimizer.param_groups:
            group["initial_lr"] = group["lr"]
    return found


class History:
    """What was seen at each step, and the processor time that the steps took; kept in checkpoints."""

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []

    def state_dict(self) -> dict[str, Any]:
        """The rows."""
        return {"rows": self.rows}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up what :meth:`state_dict` gave."""
        self.rows = [dict(row) for row in state["rows"]]


def train(job: Job, advance: Callable[[float], None]) -> tuple[Any, list[dict[str, float]]]:
    """Train one model, or go on with it.

    Args:
        job: what to train.
        advance: told the share that is done.

    Returns:
        The model in evaluation mode, and one row a step: ``loss`` (cross-entropy in nats a token), ``density`` (NaN
        where it was not looked at), ``strength`` of the penalty, ``processor_s`` and ``wall_s``.

    Raises:
        CheckpointError: the folder holds another text or training.
        DivergedError: the loss is not finite.

    Cost: a forward and a backward of one batch a step, in bfloat16 where torch's autocast takes it.
    """
    text = read_text(job.text)
    if text is None:
        raise CheckpointError(f"There is no text in {job.text}; run lazyneuron reproduce tiny-lm from the beginning.")
    torch.manual_seed(job.seed)
    model = new_model(job.size, job.gate)
    rates, history, push = optimizers(model, job.schedule), History(), _Push(model, job.pressure)
    parts: dict[str, Any] = {**rates, "history": history, **push.parts}
    checkpoints = Checkpoints(job.folder / "checkpoints", model, keep=1, **parts)
    done = checkpoints.resume_()
    model.train()
    packed = pack_activations_(model, arithmetic="auto") if job.pack else None
    guard = LossGuard(model)
    for step in range(done, job.schedule.steps):
        begun = time.process_time(), time.perf_counter()
        rows = batch_of(text.train, step, length=job.size.context, batch=job.schedule.batch, seed=job.seed)
        with push.watching(step):
            loss = loss_of(model, rows)
        penalty, seen = push.look(progress=step / job.schedule.steps)
        whole = loss + penalty
        guard.check(whole, step=step)
        _descend(model, whole, rates, job.schedule, step)
        spent = {"processor_s": time.process_time() - begun[0], "wall_s": time.perf_counter() - begun[1]}
        history.rows.append({"loss": float(loss.detach()), **seen, **spent})
        if (step + 1) % job.schedule.every == 0 or step + 1 == job.schedule.steps:
            checkpoints.save(step + 1)
        advance((step + 1) / job.schedule.steps)
    guard.remove()
    if packed is not None:
        restore_(model, packed)
    return model.eval(), history.rows


def _descend(
    model: Any, loss: Tensor, rates: Mapping[str, torch.optim.Optimizer], schedule: Schedule, step: int
) -> None:
    model.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(model.parameters(), schedule.clip)
    for optimizer in rates.values():
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"] * schedule.rate(step)
        optimizer.step()


class _Push:
    """Looks at the blocks' density, and pushes on it where the training has a pressure."""

    def __init__(self, model: Any, pressure: Pressure | None) -> None:
        self._pressure, self._blocks = pressure, find_blocks(model)
        self._controller = None if pressure is None else DensityController(pressure.target)
        self._caught: dict[str, Tensor] = {}

    @property
    def parts(self) -> dict[str, DensityController]:
        """What has to be kept in checkpoints."""
        return {} if self._controller is None else {"controller": self._controller}

    @contextlib.contextmanager
    def watching(self, step: int) -> Iterator[None]:
        """Catch the pre-activations of this step's forward, without pressure only now and then."""
        self._caught = {}
        if self._pressure is None and step % _WATCHED_EVERY:
            yield
            return
        with pre_activations(self._blocks) as self._caught:
            yield

    def look(self, *, progress: float) -> tuple[Tensor | float, dict[str, float]]:
        """The penalty to add to the loss, and what was seen."""
        if not self._caught:
            return 0.0, {"density": math.nan, "strength": 0.0}
        if self._pressure is None or self._controller is None:
            densities = [density_of(block, self._caught[block.name]) for block in self._blocks]
            return 0.0, {"density": sum(densities) / len(densities), "strength": 0.0}
        penalty, density = total_pressure(self._pressure, self._blocks, caught=self._caught, mask=None)
        strength = self._controller.update(density, progress=progress)
        return strength * penalty, {"density": density, "strength": strength}


def loss_of(model: Any, rows: Tensor) -> Tensor:
    """Mean cross-entropy of each token after the first, in nats; products run in bfloat16."""
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(input_ids=rows, use_cache=False).logits[:, :-1]
    return F.cross_entropy(logits.float().flatten(0, 1), rows[:, 1:].flatten())


def train_and_save(job: Job, advance: Callable[[float], None]) -> list[dict[str, float]]:
    """Train as :func:`train` does, and put model and tokenizer into ``job.folder / "model"``, as transformers reads it.

    Returns:
        One row a step; of a model that is there already, what was kept of its training.

    Raises:
        As :func:`train`.
        DataError: the folder cannot be written.
    """
    kept = job.folder / TRAINED
    if kept.is_file():
        advance(1.0)
        rows: list[dict[str, float]] = json.loads(kept.read_text(encoding="utf-8"))
        return rows
    model, rows = train(job, advance)
    text = read_text(job.text)
    assert text is not None
    place = job.folder / "model"
    try:
        place.mkdir(parents=True, exist_ok=True)
        with quiet():
            model.save_pretrained(place)
            tokenizer_of(text).save_pretrained(place)
    except OSError as error:
        raise DataError(f"Cannot write to {place} ({error.strerror}); choose another folder.") from error
    write_text(kept, json.dumps(rows))
    shutil.rmtree(job.folder / "checkpoints", ignore_errors=True)  # several times the model
    return rows
