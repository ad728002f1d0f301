"""What certified execution would bring to a block, from densities and this machine's cost model alone."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch

from lazyneuron.accelerate.machine import costs
from lazyneuron.accelerate.machine.cost_model import CostModel
from lazyneuron.accelerate.path import DENSE, Shares, sparse_paths
from lazyneuron.accelerate.policy.choice import Candidates, bucket_of, predict_candidates
from lazyneuron.blocks.block import MLPBlock
from lazyneuron.core.errors import ImplUnavailable
from lazyneuron.measure import StepTime
from lazyneuron.ops.sparse_mlp.packed import DTYPES, KERNEL_ACTIVATIONS


class MachineCost:
    """A cost for :func:`lazyneuron.measure.measure`: dense against the best sparse path, as the cost model has them.

    The computed share is the cost model's own for that firing share, seen on normally distributed pre-activations; it
    is not that of the model at hand.
    """

    def __init__(self) -> None:
        self._model = functools.cache(_cost_model)

    def __call__(self, block: MLPBlock, *, tokens: int, density: float, union_density: float) -> StepTime:
        """The times of one step over ``tokens`` tokens.

        Raises:
            ImplUnavailable: no cost model of the block's dtype was measured on this machine yet.
            CheckpointError: the cached cost model is corrupt.
        """
        model = self._model(block.up.weight.dtype)
        candidates = predict_candidates(block, model, sparse_paths() if _skippable(block) else ())
        return _best(candidates, tokens=tokens, shares=Shares(model.computed_share(density), density))


def machine_cost(blocks: Sequence[MLPBlock]) -> MachineCost | None:
    """A cost for these blocks, or None when this machine's cost model was not measured for all of their dtypes."""
    dtypes = {block.up.weight.dtype for block in blocks}
    here = all(block.up.weight.device.type == "cpu" for block in blocks)
    return MachineCost() if here and all(d in DTYPES and costs.are_known(d) for d in dtypes) else None


def _cost_model(dtype: torch.dtype) -> CostModel:
    if dtype not in DTYPES or not costs.are_known(dtype):
        raise ImplUnavailable(
            f"There is no cost model for {dtype} on this machine; run `lazyneuron doctor --remeasure` to measure it."
        )
    return costs.cost_model_for(dtype)


def _skippable(block: MLPBlock) -> bool:
    return block.refusal is None and block.activation.kind in KERNEL_ACTIVATIONS


def _best(candidates: Candidates, *, tokens: int, shares: Shares) -> StepTime:
    bucket = bucket_of(tokens)
    every = dict.fromkeys(candidates.lines, shares)
    path = candidates.choose(every)[bucket]
    return StepTime(
        dense_us=candidates.time_us(DENSE, bucket, every),
        best_us=candidates.time_us(path, bucket, every),
        path=path.name,
    )
