"""Time synthetic blocks on a grid of shapes, token counts and densities; about ten seconds a dtype."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from lazyneuron.accelerate.machine.cost_model import CostModel
from lazyneuron.accelerate.path import CERTIFIED_2, GATHER, Path, sparse_paths
from lazyneuron.accelerate.slack.certificate import build_sketch, inner_zero_set
from lazyneuron.accelerate.slack.certificate import with_bias as sketch_with_bias
from lazyneuron.blocks.activation import Activation
from lazyneuron.core.timing import least_us
from lazyneuron.ops.sparse_mlp import native
from lazyneuron.ops.sparse_mlp.packed import PackedBlock

SHAPES = ((384, 1536), (1024, 4096), (2048, 8192))
TOKENS = (1, 4, 16, 64, 256)
_FIRING = (0.01, 0.08, 0.4)  # shares at which a line is fitted
_INPUTS = 4  # different inputs in turn, so that rows are not simply found in the cache


def synthetic_block(d_in: int, d_hidden: int, firing: float, dtype: torch.dtype, *, seed: int = 0) -> PackedBlock:
    """A block with Gaussian weights whose biases make a share of neurons fire on Gaussian inputs."""
    generator = torch.Generator().manual_seed(seed)
    up = (torch.randn(d_hidden, d_in, generator=generator) / d_in**0.5).to(dtype)
    down = (torch.randn(d_hidden, d_in, generator=generator) / d_hidden**0.5).to(dtype)
    bias = torch.full((d_hidden,), firing_bias(firing)).to(dtype)
    relu = Activation("relu")
    return PackedBlock(
        sketch=build_sketch(up, bias),
        first_rows=up,
        first_bias=bias,
        up_rows=None,
        up_bias=None,
        down_rows=down,
        down_bias=torch.zeros(d_in, dtype=dtype),
        activation=relu,
        zero=inner_zero_set(relu, dtype),
        added_bytes=0,
    )


def firing_bias(firing: float) -> float:
    """The bias with which a standard normal pre-activation is positive with probability ``firing``."""
    if firing >= 1:
        return 20.0
    return -statistics.NormalDist().inv_cdf(1 - firing) if firing > 0 else -20.0


def with_bias(packed: PackedBlock, bias: float) -> PackedBlock:
    """The same weights with another bias on every neuron; the sketch of the weights is kept."""
    value = torch.full_like(packed.first_rows[:, 0], bias)
    return dataclasses.replace(packed, first_bias=value, sketch=sketch_with_bias(packed.sketch, value))


def dense_call(packed: PackedBlock, down: Tensor) -> Callable[[Tensor], Tensor]:
    """The block as torch runs it; ``down`` is the weight in its usual layout (d_out, d_hidden)."""
    up, bias, out = packed.first_rows, packed.first_bias, packed.down_bias
    return lambda x: F.linear(F.relu(F.linear(x, up, bias)), down, out)


@torch.no_grad()
def measure(
    dtype: torch.dtype, *, fingerprint: str, progress: Callable[[float], None] = lambda done: None
) -> CostModel:
    """Time dense and sparse execution on a grid of shapes, token counts and densities.

    Args:
        dtype: of the weights.
        fingerprint: of the machine and the software.
        progress: called with the share that is done, in [0, 1].

    Returns:
        The cost model of this machine at its present number of threads.
    """
    paths = sparse_paths()
    cells: list[list[tuple[float, dict[Path, tuple[float, float]]]]] = []
    seen: dict[float, float] = {}
    for number, (d, h) in enumerate(SHAPES):
        base = synthetic_block(d, h, 0.1, dtype)
        down = base.down_rows.t().contiguous()
        cells.append([])
        for column, tokens in enumerate(TOKENS):
            cells[-1].append(_cell(base, down, tokens, paths, seen))
            progress((number + (column + 1) / len(TOKENS)) / len(SHAPES))
    return CostModel(
        dtype=str(dtype).removeprefix("torch."),
        fingerprint=fingerprint,
        shapes=SHAPES,
        tokens=TOKENS,
        dense_us=tuple(tuple(dense_us for dense_us, _ in row) for row in cells),
        lines={path: tuple(tuple(fits[path] for _, fits in row) for row in cells) for path in paths},
        computed=tuple(sorted(seen.items())),
    )


def _cell(
    base: PackedBlock, down: Tensor, tokens: int, paths: tuple[Path, ...], seen: dict[float, float]
) -> tuple[float, dict[Path, tuple[float, float]]]:
    generator = torch.Generator().manual_seed(tokens)
    inputs = [torch.randn(tokens, base.d_in, generator=generator).to(base.dtype) for _ in range(_INPUTS)]
    dense_times: list[float] = []
    points: dict[Path, list[tuple[float, float]]] = {path: [] for path in paths}
    for firing in _FIRING:
        block = with_bias(base, firing_bias(firing))
        dense = dense_call(block, down)
        counts = {path: native.new_counts() for path in paths}
        runs = [path.runner(block, counts[path]) for path in paths]
        calls = [lambda k, run=run: run(inputs[k % _INPUTS]) for run in (dense, *runs)]
        times = least_us(calls, budget_s=0.15)
        dense_times.append(times[0])
        for path, time_us in zip(paths, times[1:], strict=True):
            if path is GATHER:
                work = 2 * firing
            else:
                pairs, fired, total = (int(v) for v in counts[path][:3])
                work = (pairs + fired) / (total * block.d_hidden)
                if path is CERTIFIED_2:
                    seen[round(fired / (total * block.d_hidden), 4)] = pairs / (total * block.d_hidden)
            points[path].append((work, time_us))
    return statistics.median(dense_times), {path: _fit(p) for path, p in points.items()}


def _fit(points: list[tuple[float, float]]) -> tuple[float, float]:
    """Fixed cost and slope through the sparse end, where decisions fall: exact at the two sparsest points."""
    (w0, t0), (w1, t1) = points[:2]
    slope = max((t1 - t0) / max(w1 - w0, 1e-9), t0 * 0.01)
    return max(t0 - slope * w0, 0.05 * t0), slope
