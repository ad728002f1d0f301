"""What the MLP blocks of trained models take for a token, all variants interleaved, one thread."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from lazyneuron.accelerate import accelerate_
from lazyneuron.core.errors import DataError
from lazyneuron.core.timing import interleaved
from lazyneuron.experiments.reproduce.capacity.tasks import Task, task_of
from lazyneuron.experiments.reproduce.capacity.training import Job, held_out_loss, trained

AT_A_TIME = (1, 512)
_SAME = 1e-4  # of a loss, by which another order of sums may change it


@dataclasses.dataclass(frozen=True, kw_only=True)
class Timed:
    """Times of one variant.

    Attributes:
        us_a_token: tokens at a time -> microseconds a token, all blocks together: the median of the rounds.
    """

    us_a_token: Mapping[int, float]


@torch.no_grad()
def time_blocks(jobs: Mapping[str, Job], *, rounds: int) -> dict[str, Timed]:
    """Time every trained model's blocks on what they are given for held-out tokens.

    Sparse variants run as :func:`lazyneuron.accelerate_` has them, which is checked to leave the loss as it was.

    Args:
        jobs: name -> what was trained.
        rounds: counted runs of each.

    Raises:
        DataError: acceleration changed a loss.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        ready = {name: _ready(job) for name, job in jobs.items()}
        found: dict[str, dict[int, float]] = {name: {} for name in jobs}
        for tokens in AT_A_TIME:
            calls = {name: _call(blocks, inputs, tokens) for name, (blocks, inputs) in ready.items()}
            times = interleaved(
                calls, list(range(64)), budget_s=0.0, least=rounds, most=rounds, warm_up=3, in_a_row=8, uncounted=2
            )
            for name, one in times.items():
                found[name][tokens] = one.median_us / tokens
        return {name: Timed(us_a_token=one) for name, one in found.items()}
    finally:
        torch.set_num_threads(threads)


def _ready(job: Job) -> tuple[Sequence[nn.Module], Sequence[Tensor]]:
    task, model = task_of(job.task), trained(job)
    if job.kind == "sparse":
        accelerate_checked_(model, task)
    return task.blocks(model), task.block_inputs(model)


def accelerate_checked_(model: nn.Module, task: Task) -> None:
    """Accelerate a model, and see that its loss on held-out data stays.

    Raises:
        DataError: it does not.
    """
    before = held_out_loss(model, task)
    accelerate_(model, [task.held_out[0][:512]])
    after = held_out_loss(model, task)
    if abs(after - before) > _SAME * abs(before):
        raise DataError(f"Acceleration changed a held-out loss from {before} to {after}; report this with the model.")


def _call(blocks: Sequence[nn.Module], inputs: Sequence[Tensor], tokens: int) -> Callable[[int], object]:
    starts = itertools.cycle(range(0, len(inputs[0]) - tokens + 1, tokens))

    def call(_: int) -> object:
        start = next(starts)
        return [block(x[start : start + tokens]) for block, x in zip(blocks, inputs, strict=True)]

    return call
