"""The one loop that distillation trains in, of whole models and of single blocks."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lazyneuron.core.errors import ConfigError, DataError
from lazyneuron.induce.training.controller import DensityController
from lazyneuron.induce.training.pressure import Pressure


@dataclasses.dataclass(frozen=True, kw_only=True)
class Distillation:
    """How long and how to train.

    Attributes:
        steps: optimiser steps, one batch each.
        learning_rate: its peak; it rises over the first ``warmup`` of the way and falls in a line.
        last: share of the peak that is left at the end, in [0, 1]; a training in several parts goes on from there.
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
    last: float = 0.0
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
        if not 0 <= self.last <= 1:
            raise ConfigError(f"`last` is a share of the learning rate in [0, 1], got {self.last}.")
        if self.seconds is not None and not self.seconds > 0:
            raise ConfigError(f"`seconds` is a number > 0 or None, got {self.seconds}.")

    def rate_at(self, progress: float) -> float:
        """The learning rate when a share ``progress`` of the way is done."""
        return (
            self.learning_rate
            * min(1.0, (progress + 1e-3) / max(self.warmup, 1e-3))
            * max(0.0, 1 - (1 - self.last) * progress)
        )


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


def train_steps(
    trained: Sequence[nn.Parameter],
    *,
    config: Distillation,
    batches: Iterable[Any],
    losses: Callable[[Any, int, float], tuple[Tensor, Step]],
    fused: bool | None = None,
) -> Iterator[Step]:
    """Train parameters by AdamW; they hold no gradient afterwards.

    Args:
        trained: the parameters.
        config: how long and how.
        batches: iterated again when it ends too early.
        losses: from a batch, the step's number and its progress to the loss and what was seen.
        fused: ask for torch's fused optimiser step; None leaves the choice to torch.

    Yields:
        What each step saw, after it.
    """
    optimizer = torch.optim.AdamW(trained, lr=config.learning_rate, betas=(0.9, 0.95), weight_decay=0.0, fused=fused)
    for number, progress, batch in timed_batches(batches, steps=config.steps, seconds=config.seconds):
        for group in optimizer.param_groups:
            group["lr"] = config.rate_at(progress)
        loss, step = losses(batch, number, progress)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(trained, config.clip)
        optimizer.step()
        yield step
    optimizer.zero_grad(set_to_none=True)


def add_penalty(
    fidelity: Tensor, step: Step, *, controller: DensityController, penalty: Tensor, density: float
) -> tuple[Tensor, Step]:
    """The loss with a penalty as strong as the controller finds right, and the step with what was seen of it."""
    strength = controller.update(density, progress=step.progress)
    goal = controller.goal(step.progress)
    return fidelity + strength * penalty, dataclasses.replace(step, density=density, goal=goal, strength=strength)


def timed_batches(batches: Iterable[Any], *, steps: int, seconds: float | None) -> Iterator[tuple[int, float, Any]]:
    """Number, progress in [0, 1) and batch of each step, until the steps or the time are over.

    Args:
        batches: started again when it ends.
        steps: how many steps at most.
        seconds: progress follows the clock where that is ahead of the step count, and ends at this time; None leaves
            the clock aside.

    Raises:
        DataError: there are no batches.
    """
    start = time.monotonic()
    number = 0
    while True:
        before = number
        for batch in batches:
            # microseconds of the first step would make every run another one: its learning rate follows them
            clock = (time.monotonic() - start) / seconds if seconds is not None and number else 0.0
            progress = max(number / steps, clock)
            if progress >= 1:
                return
            yield number, progress, batch
            number += 1
        if number == before:
            raise DataError("There are no batches to train on; pass at least one, as a list if it is to be used again.")
