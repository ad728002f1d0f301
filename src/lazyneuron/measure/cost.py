"""What a block costs: bytes and FLOPs of dense and of certified execution, and the gain they allow."""

from __future__ import annotations

import dataclasses
from typing import Protocol

from lazyneuron.blocks.block import MLPBlock


@dataclasses.dataclass(frozen=True, kw_only=True)
class Traffic:
    """What one step of a block over some tokens must move and compute.

    A certified step computes at least the neurons that fire (it computes more: those that its sketch cannot decide), so
    its figures here are lower bounds and the gain is a ceiling.

    Attributes:
        tokens: tokens processed together.
        dense_bytes: weights that a dense step reads.
        certified_bytes_at_least: sketch and rows that a certified step reads when nothing silent is computed.
        dense_flops: a multiply-add is two.
        certified_flops_at_least: the same for the rows computed; the int8 sketch is in ``sketch_int_ops``.
        sketch_int_ops: int8 operations of the sketch.
        speedup_ceiling_from_bytes: ``dense_bytes / certified_bytes_at_least``, but not below 1, because a block may
            always run densely; no time was measured for it.
    """

    tokens: int
    dense_bytes: int
    certified_bytes_at_least: float
    dense_flops: int
    certified_flops_at_least: float
    sketch_int_ops: int

    @property
    def speedup_ceiling_from_bytes(self) -> float:
        """How much less than a dense step a block can read at best; 1 where a certified step reads more."""
        return max(1.0, self.dense_bytes / self.certified_bytes_at_least)


def traffic(
    d_in: int,
    d_hidden: int,
    *,
    d_out: int,
    itemsize: int,
    gated: bool,
    density: float,
    union_density: float | None = None,
    tokens: int = 1,
) -> Traffic:
    """Bytes and FLOPs of one step of a block, dense and certified.

    Args:
        d_in: width of the input.
        d_hidden: number of neurons.
        d_out: width of the output.
        itemsize: bytes of one weight.
        gated: whether the block has a gate.
        density: share of neurons that fire on one token, in [0, 1]; FLOPs follow it.
        union_density: share that fires on at least one of the tokens; bytes follow it. None stands for ``density``.
        tokens: tokens processed together.

    Returns:
        The figures. Dense reads every weight once: ``d_hidden (d_in + d_out) itemsize``, gated ``d_hidden
        (2 d_in + d_out) itemsize``. Certified reads one byte a weight of the layer that decides, and of the rest only
        the rows of neurons that fire.

    Source: ours; with ``d_in = d_out = d`` the one-token figure is ``d d_hidden (1 + itemsize (c + a))``, in which the
        firing share a bounds the computed share c from below.
    """
    union = density if union_density is None else union_density
    dense = d_hidden * (d_in * (2 if gated else 1) + d_out)
    return Traffic(
        tokens=tokens,
        dense_bytes=dense * itemsize,
        certified_bytes_at_least=d_hidden * d_in + union * dense * itemsize,
        dense_flops=2 * tokens * dense,
        certified_flops_at_least=2 * tokens * density * dense,
        sketch_int_ops=2 * tokens * d_hidden * d_in,
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class StepTime:
    """What a cost model predicts for one step of one block on this machine.

    Attributes:
        dense_us: time of dense execution.
        best_us: time of the best path, which may be dense.
        path: name of that path.
    """

    dense_us: float
    best_us: float
    path: str


class BlockCost(Protocol):
    """Predicts the time of a block on this machine; the accelerate room provides one."""

    def __call__(self, block: MLPBlock, *, tokens: int, density: float, union_density: float) -> StepTime:
        """The times of one step over ``tokens`` tokens."""
        ...
