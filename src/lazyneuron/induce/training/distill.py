"""Training a changed model to do what the original does, while fewer and fewer of its neurons fire."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lazyneuron.blocks.block import MLPBlock
from lazyneuron.blocks.borrowed import borrowed
from lazyneuron.blocks.find import check_blocks
from lazyneuron.core.batch import call_model, padding_mask
from lazyneuron.core.errors import ConfigError, DataError
from lazyneuron.induce.training.controller import DensityController
from lazyneuron.induce.training.loop import Distillation, Step, add_penalty, train_steps
from lazyneuron.induce.training.penalty import real_rows
from lazyneuron.induce.training.pressure import pre_activations, tokens_in, total_pressure

Compare = Callable[[Any, Any, Any], Tensor]


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
    controller = DensityController(config.pressure.target) if config.pressure else None
    device = next(student.parameters()).device.type
    steps: list[Step] = []

    def losses(batch: Any, number: int, progress: float) -> tuple[Tensor, Step]:
        caught.clear()
        with torch.autocast(device, dtype=torch.bfloat16, enabled=config.bf16):
            with torch.no_grad():
                wanted = call_model(teacher, batch)
            answer = call_model(student, batch)
        fidelity, mask = compare(answer, wanted, batch), padding_mask(batch)
        value = float(fidelity.detach())
        if not math.isfinite(value):
            raise DataError(f"Training diverged at step {number} (loss {value}); lower learning_rate and start again.")
        step = Step(number=number, progress=progress, fidelity=value, tokens=tokens_in(blocks, caught, mask=mask))
        if controller is None or config.pressure is None:
            return fidelity, step
        penalty, density = total_pressure(config.pressure, blocks, caught=caught, mask=mask)
        return add_penalty(fidelity, step, controller=controller, penalty=penalty, density=density)

    with (
        borrowed(student, evaluate=True, trained=trained, weights=True),
        borrowed(teacher, evaluate=True),
        pre_activations(blocks) as caught,
    ):
        for step in train_steps(trained, config=config, batches=batches, losses=losses, fused=_fusable(trained)):
            steps.append(step)
            if on_step is not None:
                on_step(step)
    return tuple(steps)


def _fusable(parameters: Sequence[nn.Parameter]) -> bool:
    """Whether torch's fused optimiser step takes all of them."""
    return all(p.is_floating_point() and p.device.type in ("cpu", "cuda") for p in parameters)
