"""What a step of a block costs densely and by what fires alone, measured on this machine at its own shape."""

from __future__ import annotations

import dataclasses
import functools
import statistics
from collections.abc import Callable

import torch
from torch import Tensor

from lazyneuron.blocks.interval import ZeroInterval
from lazyneuron.core.timing import repeated
from lazyneuron.ops.fired.operators import fired_columns, fired_dots, fired_rows
from lazyneuron.ops.packing.operators import gather_fired, mark_fired, scatter_fired

MARGIN = 0.9  # of the dense time, which sparse products have to stay below
_DENSITIES = (0.02, 0.2)
_BUCKETS = (64, 128, 256, 512, 1024)
_ROUNDS = 3


@dataclasses.dataclass(frozen=True, kw_only=True)
class StepCosts:
    """Times of all products of a training step that follow the activation, forward and backward.

    Attributes:
        tokens: that they were measured with.
        dense_us: by torch's dense products.
        fixed_us: by what fires, when nothing does.
        pair_us: more, for each pair of token and neuron that fires.
    """

    tokens: int
    dense_us: float
    fixed_us: float
    pair_us: float

    def is_sparse_faster(self, tokens: int, pairs: int) -> bool:
        """Do sparse products take clearly less time for so many tokens and pairs that fire?"""
        scale = tokens / self.tokens
        return self.fixed_us * max(scale, 1.0) + self.pair_us * pairs < MARGIN * self.dense_us * scale


@dataclasses.dataclass(frozen=True, kw_only=True)
class BlockShape:
    """Widths of a block; ``firsts`` is 2 for a gated one, which has two layers before its product."""

    d_in: int
    d_hidden: int
    d_out: int
    firsts: int = 1


def costs_for(shape: BlockShape, tokens: int) -> StepCosts:
    """The costs at the nearest number of tokens that is measured: at first use, then kept for this process.

    Cost: under a second for 768 x 3072, once for each shape, number of threads and power of two from 64 to 1024 tokens.
    """
    bucket = min(_BUCKETS, key=lambda n: abs(n - tokens))
    return _measured(shape, bucket, torch.get_num_threads())


@functools.cache
def _measured(shape: BlockShape, tokens: int, threads: int) -> StepCosts:
    with torch.no_grad(), torch.autocast("cpu", enabled=False):
        x, g, z = (_numbers(tokens, n, seed=n) for n in (shape.d_in, shape.d_out, shape.d_hidden))
        up = _numbers(shape.d_hidden, shape.d_in, seed=1)
        down = _numbers(shape.d_out, shape.d_hidden, seed=2)

        def dense() -> None:
            z @ down.t(), g @ down, g.t() @ z
            for _ in range(shape.firsts):
                z @ up, z.t() @ x

        times, pairs = [], []
        for density in _DENSITIES:
            bits = mark_fired(z, ZeroInterval(statistics.NormalDist().inv_cdf(1 - density)))
            values = gather_fired(z, bits)
            pairs.append(values.numel())
            step = functools.partial(_sparse, bits, values, x=x, g=g, up=up, down=down, shape=shape)
            times.append(_least_us(step))
        slope = max(0.0, (times[1] - times[0]) / max(1, pairs[1] - pairs[0]))
        fixed = max(0.0, times[0] - slope * pairs[0])
        return StepCosts(tokens=tokens, dense_us=_least_us(dense), fixed_us=fixed, pair_us=slope)


def _sparse(bits: Tensor, values: Tensor, *, x: Tensor, g: Tensor, up: Tensor, down: Tensor, shape: BlockShape) -> None:
    neurons = shape.d_hidden
    rows = down.t().contiguous()
    fired_rows(bits, values, rows)
    rows = down.t().contiguous()  # once more in the backward: kept, it would take as much memory as the weight
    along = fired_dots(bits, g, rows)
    fired_columns(bits, values, g, neurons).t().contiguous()
    scatter_fired(bits, along, (len(g), neurons))
    for _ in range(shape.firsts):
        scatter_fired(bits, along, (len(g), neurons))
        fired_rows(bits, along, up)
        fired_columns(bits, along, x, neurons)


def _numbers(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _least_us(call: Callable[[], None]) -> float:
    return repeated(call, rounds=_ROUNDS, warm_up=1).least_us
