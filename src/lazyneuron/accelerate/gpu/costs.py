"""What blocks of a shape cost on this device, dense and sparse: measured once for each shape, as the CPU's model is."""

from __future__ import annotations

import dataclasses
import itertools
import math
import statistics
from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from lazyneuron.accelerate.gpu.timing import MODES, Mode, Timer, least_us
from lazyneuron.blocks.activation import Activation
from lazyneuron.ops.gpu_mlp import operators
from lazyneuron.ops.gpu_mlp.layer import KEPT, Layer
from lazyneuron.ops.gpu_mlp.tiles import Tiles, tiles_for

BUCKETS = 5  # bucket k holds 2^(k-1) < tokens <= 2^k: up to 16 tokens; more of them run densely
GAIN_WANTED = 0.95  # sparse must be predicted at least this much below dense
_FIRING = (0.02, 0.4)  # shares of neurons that fire for some token, at which a line is fitted
_CACHE_BYTES = 256 << 20  # weights that are read in turn, so that no cache holds those of the next call
_MOST_COPIES = 8
_NO_LIMIT = 1e30

Run = Callable[[Tensor], Tensor]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shape:
    """What the times depend on, beside the device.

    Attributes:
        d_in, d_hidden, d_out: widths.
        gated: whether there are three matrices.
        dtype: of weights and inputs.
        device: that they are on.
    """

    d_in: int
    d_hidden: int
    d_out: int
    gated: bool
    dtype: torch.dtype
    device: torch.device


@dataclasses.dataclass(frozen=True, kw_only=True)
class Costs:
    """Times in us by mode and bucket.

    Attributes:
        dense_us: [bucket].
        sparse_us: [bucket] of (at no neuron, more when every neuron fires).
        tiles: [bucket] the cut that was fastest.
    """

    dense_us: Mapping[Mode, tuple[float, ...]]
    sparse_us: Mapping[Mode, tuple[tuple[float, float], ...]]
    tiles: tuple[Tiles, ...]

    def predicted_us(self, mode: Mode, bucket: int, union: float) -> float:
        """The time of the sparse path when this share of neurons fires for some token."""
        fixed, slope = self.sparse_us[mode][bucket]
        return fixed + slope * union

    def choose(self, mode: Mode, union: Mapping[int, float] | float) -> tuple[bool, ...]:
        """[bucket] whether the sparse path is worth it, at these union densities."""
        shares = dict.fromkeys(range(BUCKETS), union) if isinstance(union, float) else union
        return tuple(
            self.predicted_us(mode, k, shares[k]) < GAIN_WANTED * self.dense_us[mode][k] for k in range(BUCKETS)
        )


_known: dict[Shape, Costs] = {}


def costs_of(shape: Shape) -> Costs:
    """The costs of a shape, from this process's memory, or measured now (a few seconds)."""
    if shape not in _known:
        _known[shape] = measure(shape)
    return _known[shape]


@torch.no_grad()
def measure(shape: Shape, *, timer: Timer = least_us) -> Costs:
    """Time dense and sparse blocks of random weights at two densities, and a few cuts of the sparse one."""
    copies = _copies(shape)
    dense: dict[Mode, list[float]] = {mode: [] for mode in MODES}
    lines: dict[Mode, list[tuple[float, float]]] = {mode: [] for mode in MODES}
    tiles: list[Tiles] = []
    for bucket in range(BUCKETS):
        x = torch.randn(2**bucket, shape.d_in, device=shape.device).to(shape.dtype)
        cut = _best_cut(copies, x, shape, timer)
        tiles.append(cut)
        for mode in MODES:
            points, dense_us = [], []
            for firing in _FIRING:
                blocks = [block.firing(firing, len(x)) for block in copies]
                calls = ([block.dense for block in blocks], [block.sparse(cut) for block in blocks])
                times = timer([_in_turn(runs, x) for runs in calls], mode)
                dense_us.append(times[0])
                points.append(times[1])
            slope = max(points[1] - points[0], 0.0) / (_FIRING[1] - _FIRING[0])
            dense[mode].append(statistics.median(dense_us))
            lines[mode].append((max(points[0] - slope * _FIRING[0], 0.0), slope))
    return Costs(
        dense_us={mode: tuple(times) for mode, times in dense.items()},
        sparse_us={mode: tuple(row) for mode, row in lines.items()},
        tiles=tuple(tiles),
    )


class Synthetic:
    """A ReLU block of random weights whose bias decides how much fires."""

    def __init__(self, shape: Shape) -> None:
        def normal(rows: int, width: int) -> Tensor:
            return torch.randn(rows, width, device=shape.device).to(shape.dtype) / math.sqrt(width)

        self.first = normal(shape.d_hidden, shape.d_in)
        self.up = normal(shape.d_hidden, shape.d_in) if shape.gated else None
        self.weight = normal(shape.d_out, shape.d_hidden)
        self.rows = self.weight.t().contiguous()
        self.bias = torch.zeros(shape.d_hidden, device=shape.device, dtype=shape.dtype)
        self.counts = operators.new_counts(shape.device)

    def firing(self, union: float, tokens: int) -> Synthetic:
        """The same weights with the bias at which this share of neurons fires for one of some tokens."""
        single = 1 - (1 - union) ** (1 / tokens)
        self.bias.fill_(-statistics.NormalDist().inv_cdf(1 - single))
        return self

    def dense(self, x: Tensor) -> Tensor:
        """As torch runs it."""
        h: Tensor = F.relu(F.linear(x, self.first, self.bias))
        if self.up is not None:
            h = h * F.linear(x, self.up)
        return F.linear(h, self.weight)

    def sparse(self, tiles: Tiles) -> Run:
        """As the kernels run it."""
        up = None if self.up is None else Layer(rows=self.up)
        arguments = operators.block_arguments(
            Layer(rows=self.first, bias=self.bias), Layer(rows=self.rows), activation=Activation("relu"),
            counts=self.counts, up=up, limit=_NO_LIMIT, tiles=tiles,
        )  # fmt: skip
        op = operators.op("mlp")
        return lambda x: op(x, *arguments)


def _copies(shape: Shape) -> list[Synthetic]:
    """As many blocks as it takes for their weights to be read from memory each time."""
    matrices = 3 if shape.gated else 2
    size = matrices * shape.d_in * shape.d_hidden * shape.dtype.itemsize
    count = min(_MOST_COPIES, max(1, _CACHE_BYTES // max(size, 1))) if shape.device.type == "cuda" else 1
    return [Synthetic(shape) for _ in range(count)]


def _best_cut(copies: list[Synthetic], x: Tensor, shape: Shape, timer: Timer) -> Tiles:
    """Of a few cuts of the work, the fastest at a low density."""
    base = tiles_for(tokens=len(x), hidden=shape.d_hidden, d_out=shape.d_out, bits=KEPT, device=shape.device)
    cuts = [base, dataclasses.replace(base, neurons=32), dataclasses.replace(base, warps=8)]
    blocks = [block.firing(_FIRING[0], len(x)) for block in copies]
    times = timer([_in_turn([block.sparse(cut) for block in blocks], x) for cut in cuts], "captured")
    return cuts[min(range(len(cuts)), key=times.__getitem__)]


def _in_turn(runs: Sequence[Run], x: Tensor) -> Callable[[], object]:
    """Calls of several blocks in turn on one input."""
    turns = itertools.cycle(runs)
    return lambda: next(turns)(x)
