"""Training a changed model to do what the original does, while fewer and fewer of its neurons fire."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lazyneuron.blocks.block import MLPBlock
from lazyneuron.blocks.borrowed import borrowed
from lazyneuron.blocks.find import check_blocks
from lazyneuron.core.batch import call_model, padding_mask
from lazyneuron.core.errors import ConfigError, DataError
from lazyneuron.induce.training.controller import DensityController
from lazyneuron.induce.training.penalty import real_rows
from lazyneuron.induce.training.pressure import Pressure, pre_activations, tokens_in, total_pressure

Compare = Callable[[Any, Any, Any], Tensor]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Distillation:
    """How long and how to train.

    Attributes:
        steps: optimiser steps, one batch each.
        learning_rate: its peak; it rises over the first ``warmup`` of the way and then falls to 0 in a line.
        warmup: share of the way, in [0, 1).
        pressure: the penalty that silences neurons; None trains for fidelity alone.
        clip: largest norm of the gradient.
        seconds: time after which training is to be over. The schedules then follow the clock instead of the step
            count wherever the clock is ahead, so that a slow machine makes fewer steps but ends just as settled. None
            makes all the steps, which makes the result a function of the seed alone.
        bf16: run the matrix products in bfloat16 (the weights stay what they are). Worth it where the processor has
            such instructions.
    """

    steps: int
    learning_rate: float = 5e-4
    warmup: float = 0.05
    pressure: Pressure | None = None
    clip: float = 1.0
    seconds: float | None = None
    bf16: bool = False

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ConfigError(f"A distillation makes at least 1 step, got {self.steps}.")
        if not (self.learning_rate > 0 and 0 <= self.warmup < 1 and self.clip > 0):
            raise ConfigError(
                f"A distillation takes learning_rate > 0, warmup in [0, 1) and clip > 0, got {self.learning_rate}, "
                f"{self.warmup} and {self.clip}."
            )
        if self.seconds is not None and not self.seconds > 0:
            raise ConfigError(f"`seconds` is a number > 0 or None, got {self.seconds}.")

    def rate_at(self, progress: float) -> float:
        """The learning rate when a share ``progress`` of the way is done."""
        return self.learning_rate * min(1.0, (progress + 1e-3) / max(self.warmup, 1e-3)) * max(0.0, 1 - progress)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Step:
    """What one step of training saw.

    Attributes:
        number: from 0.
        progress: share of the way done before it.
        fidelity: the value of the comparison with the original.
        tokens: real tokens that the first block saw.
        density: share of hidden activations that were not zero, over real tokens; None without pressure.
        goal: the density demanded.
        strength: the penalty's coefficient.
    """

    number: int
    progress: float
    fidelity: float
    tokens: int = 0
    density: float | None = None
    goal: float | None = None
    strength: float | None = None


def token_error(student: Any, teacher: Any, batch: Any) -> Tensor:
    """Squared error over the variance of the teacher's output, over real tokens.

    Args:
        student: the trained model's output: a tensor, or a mapping or tuple whose first entry is one.
        teacher: the original's.
        batch: the batch; its ``attention_mask`` says which tokens are real.

    Returns:
        A scalar; 0 means equal and 1 means no better than a constant.
    """
    s, t = _first_tensor(student).float(), _first_tensor(teacher).float()
    mask = padding_mask(batch)
    if mask is not None and mask.shape == t.shape[:-1]:
        s, t = real_rows(s, mask), real_rows(t, mask)
    return (s - t).square().mean() / t.var().clamp_min(torch.finfo(t.dtype).tiny)


def _first_tensor(output: Any) -> Tensor:
    while not isinstance(output, Tensor):
        output = output[0]
    return output


def distill(
    student: nn.Module,
    teacher: nn.Module,
    *,
    batches: Iterable[Any],
    blocks: Sequence[MLPBlock],
    config: Distillation,
    compare: Compare = token_error,
    parameters: Sequence[nn.Parameter] | None = None,
    on_step: Callable[[Step], None] | None = None,
) -> tuple[Step, ...]:
    """Train ``student`` end to end to answer as ``teacher`` does.

    Both models run as in evaluation, so dropout does not disturb the comparison. Nothing here is random: the order of
    the batches is the caller's.

    Args:
        student: the model to train, in place.
        teacher: the original; it is not changed.
        batches: what to train on; iterated again when it ends before ``config.steps``.
        blocks: the student's blocks, whose density is watched and, with a pressure, lowered.
        config: how long and how.
        compare: (student's output, teacher's output, batch) to a scalar that is 0 when they agree.
        parameters: what to train; None means everything that requires a gradient.
        on_step: called after each step, for a progress bar.

    Returns:
        One entry for each step.

    Raises:
        ConfigError: student and teacher are the same module, there is nothing to train, or the blocks are not the
            student's or outdated.
        DataError: there are no batches, or training diverged.

    An exception, Ctrl-C included, leaves the student with the weights it came with.

    Cost: one forward of the teacher and a forward and backward of the student for each step; memory for a copy of the
        trained weights, their gradients and two moments of each.
    """
    trained = [p for p in student.parameters() if p.requires_grad] if parameters is None else list(parameters)
    if student is teacher or not trained:
        what = "the student is the teacher itself" if student is teacher else "no parameter requires a gradient"
        raise ConfigError(f"There is nothing to distil: {what}; pass a copy.deepcopy of the original to train.")
    check_blocks(student, blocks)
    course = _Course(student=student, teacher=teacher, blocks=blocks, config=config, compare=compare)
    optimizer = torch.optim.AdamW(
        trained, lr=config.learning_rate, betas=(0.9, 0.95), weight_decay=0.0, fused=_fusable(trained)
    )
    steps: list[Step] = []
    with (
        borrowed(student, evaluate=True, trained=trained, weights=True),
        borrowed(teacher, evaluate=True),
        pre_activations(blocks) as caught,
    ):
        for number, progress, batch in schedule(batches, steps=config.steps, seconds=config.seconds):
            for group in optimizer.param_groups:
                group["lr"] = config.rate_at(progress)
            caught.clear()
            loss, step = course.loss(batch, caught, number=number, progress=progress)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(trained, config.clip)
            optimizer.step()
            steps.append(step)
            if on_step is not None:
                on_step(step)
    return tuple(steps)


def _fusable(parameters: Sequence[nn.Parameter]) -> bool:
    """Whether torch's fused optimiser step takes all of them."""
    return all(p.is_floating_point() and p.device.type in ("cpu", "cuda") for p in parameters)


class _Course:
    """One training run's loss, with the controller's memory."""

    def __init__(
        self,
        *,
        student: nn.Module,
        teacher: nn.Module,
        blocks: Sequence[MLPBlock],
        config: Distillation,
        compare: Compare,
    ) -> None:
        self.student, self.teacher, self.blocks = student, teacher, blocks
        self.config, self.compare = config, compare
        self.controller = DensityController(config.pressure.target) if config.pressure else None

    def loss(self, batch: Any, caught: dict[str, Tensor], *, number: int, progress: float) -> tuple[Tensor, Step]:
        """The loss of one batch, and what was seen on the way."""
        device = next(self.student.parameters()).device.type
        with torch.autocast(device, dtype=torch.bfloat16, enabled=self.config.bf16):
            with torch.no_grad():
                wanted = call_model(self.teacher, batch)
            answer = call_model(self.student, batch)
        fidelity = self.compare(answer, wanted, batch)
        value = float(fidelity.detach())
        if not math.isfinite(value):
            raise DataError(f"Training diverged at step {number} (loss {value}); lower learning_rate and start again.")
        mask = padding_mask(batch)
        tokens = tokens_in(self.blocks, caught, mask=mask)
        if self.controller is None or self.config.pressure is None:
            return fidelity, Step(number=number, progress=progress, fidelity=value, tokens=tokens)
        penalty, density = total_pressure(self.config.pressure, self.blocks, caught=caught, mask=mask)
        strength = self.controller.update(density, progress=progress)
        step = Step(
            number=number,
            progress=progress,
            fidelity=value,
            tokens=tokens,
            density=density,
            goal=self.controller.goal(progress),
            strength=strength,
        )
        return fidelity + strength * penalty, step


def schedule(batches: Iterable[Any], *, steps: int, seconds: float | None) -> Iterator[tuple[int, float, Any]]:
    """Number, progress in [0, 1) and batch of each step.

    Args:
        batches: started again when it ends.
        steps: how many steps at most.
        seconds: progress follows the clock where that is ahead of the step count, and ends at this time; None does not
            look at the clock.

    Raises:
        DataError: there are no batches.
    """
    start = time.monotonic()
    number = 0
    while True:
        before = number
        for batch in batches:
            clock = (time.monotonic() - start) / seconds if seconds is not None else 0.0
            progress = max(number / steps, clock)
            if progress >= 1:
                return
            yield number, progress, batch
            number += 1
        if number == before:
            raise DataError("There are no batches to train on; pass at least one, as a list if it is to be used again.")
