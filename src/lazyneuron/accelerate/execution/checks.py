"""What an accelerated call costs beside its path: the checks, which are part of the decision."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor, nn

from lazyneuron.accelerate.execution.execution import BlockExecution
from lazyneuron.accelerate.execution.freshness import Freshness
from lazyneuron.accelerate.path import DENSE, Path
from lazyneuron.accelerate.policy.choice import BUCKETS, Candidates
from lazyneuron.accelerate.policy.following import Following
from lazyneuron.blocks.block import MLPBlock
from lazyneuron.blocks.splice.wiring import Wiring
from lazyneuron.core.timing import least_us
from lazyneuron.ops.sparse_mlp.packed import PackedBlock

_ASSUMED_US = 10.0  # of a block in training mode, whose calls are declined before most checks


@torch.no_grad()
def measure_checks(
    block: MLPBlock, packed: PackedBlock, freshness: Freshness, path: Path, *, model: nn.Module
) -> tuple[float, ...]:
    """Time the calls of a block whose path does nothing, over those that decline since dense is chosen.

    Args:
        block: found in ``model``; nothing is changed.
        packed: its packed weights.
        freshness: of these weights.
        path: any sparse path that runs here.
        model: the model.

    Returns:
        [bucket] microseconds.
    """
    nothing = Candidates(dense_us=(), lines={}, rows=1)
    runs = []
    for chosen in (DENSE, path):
        following = Following(nothing, (chosen,) * BUCKETS, {}, packed.d_hidden)
        run = BlockExecution(block, packed, freshness=freshness, following=following, fixed=True)
        run.wiring = Wiring(block, model)
        run.current.state = dataclasses.replace(run.current.now(), runs=(_do_nothing,) * BUCKETS)
        runs.append(run)
    inputs = [torch.zeros((), dtype=packed.dtype).expand(2**k, packed.d_in) for k in range(BUCKETS)]  # one number
    if runs[1](inputs[0]) is None:
        return (_ASSUMED_US,) * BUCKETS
    calls = [lambda _, run=run, x=x: run(x) for run, x in ((runs[0], inputs[0]), *((runs[1], x) for x in inputs))]
    declined, *checked = least_us(calls, budget_s=0.05)
    return tuple(time_us - declined for time_us in checked)


def _do_nothing(x: Tensor) -> Tensor:
    return x
