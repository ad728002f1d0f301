"""Measure the cost model of this machine; about ten seconds a dtype, once."""

from __future__ import annotations

import dataclasses
import functools
import statistics
import warnings
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from lazyneuron.accelerate import cost_model
from lazyneuron.accelerate.certificate import build_sketch, inner_zero_set
from lazyneuron.accelerate.certificate import with_bias as sketch_with_bias
from lazyneuron.accelerate.cost_model import SHAPES, TOKENS, CostModel
from lazyneuron.blocks.activation import Activation
from lazyneuron.core.errors import DataError
from lazyneuron.core.timing import least_us
from lazyneuron.ops.choice import choose
from lazyneuron.ops.native import load
from lazyneuron.ops.sparse_mlp import gather, native
from lazyneuron.ops.sparse_mlp.packed import PackedBlock

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
        switch_rows=up,
        switch_bias=bias,
        up_rows=None,
        up_bias=None,
        down_rows=down,
        down_scale=None,
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
    value = torch.full_like(packed.switch_rows[:, 0], bias)
    return dataclasses.replace(packed, switch_bias=value, sketch=sketch_with_bias(packed.sketch, value))


def dense_call(packed: PackedBlock, down: Tensor) -> Callable[[Tensor], Tensor]:
    """The block as torch runs it; ``down`` is the weight in its usual layout (d_out, d_hidden)."""
    up, bias, out = packed.switch_rows, packed.switch_bias, packed.down_bias
    return lambda x: F.linear(F.relu(F.linear(x, up, bias)), down, out)


@torch.no_grad()
def measure(dtype: torch.dtype, *, progress: Callable[[float], None] = lambda done: None) -> CostModel:
    """Time dense and sparse execution on a grid of shapes, token counts and densities.

    Args:
        dtype: of the weights.
        progress: called with the share that is done, in [0, 1].

    Returns:
        The cost model of this machine at its present number of threads.
    """
    paths = available_paths()
    dense_grid: list[tuple[float, ...]] = []
    lines: dict[str, list[tuple[tuple[float, float], ...]]] = {path: [] for path in paths}
    seen: dict[float, float] = {}
    for number, (d, h) in enumerate(SHAPES):
        base = synthetic_block(d, h, 0.1, dtype)
        down = base.down_rows.t().contiguous()
        dense_row: list[float] = []
        line_rows: dict[str, list[tuple[float, float]]] = {path: [] for path in paths}
        for column, tokens in enumerate(TOKENS):
            dense_us, fits = _cell(base, down, tokens, paths, seen)
            dense_row.append(dense_us)
            for path in paths:
                line_rows[path].append(fits[path])
            progress((number + (column + 1) / len(TOKENS)) / len(SHAPES))
        dense_grid.append(tuple(dense_row))
        for path in paths:
            lines[path].append(tuple(line_rows[path]))
    return CostModel(
        dtype=str(dtype).removeprefix("torch."),
        fingerprint=fingerprint(),
        shapes=SHAPES,
        tokens=TOKENS,
        dense_us=tuple(dense_grid),
        lines={path: tuple(grid) for path, grid in lines.items()},
        computed=tuple(sorted(seen.items())),
    )


def _cell(
    base: PackedBlock, down: Tensor, tokens: int, paths: tuple[str, ...], seen: dict[float, float]
) -> tuple[float, dict[str, tuple[float, float]]]:
    generator = torch.Generator().manual_seed(tokens)
    inputs = [torch.randn(tokens, base.d_in, generator=generator).to(base.dtype) for _ in range(_INPUTS)]
    dense_times: list[float] = []
    points: dict[str, list[tuple[float, float]]] = {path: [] for path in paths}
    for firing in _FIRING:
        block = with_bias(base, firing_bias(firing))
        dense = dense_call(block, down)
        counts = {path: native.new_counts() for path in paths}
        runs = [path_call(block, path, counts[path]) for path in paths]
        calls = [lambda k, run=run: run(inputs[k % _INPUTS]) for run in (dense, *runs)]
        times = least_us(calls, budget_s=0.15)
        dense_times.append(times[0])
        for path, time_us in zip(paths, times[1:], strict=True):
            if path == "gather":
                work = 2 * firing
            else:
                pairs, fired, total = (int(v) for v in counts[path][:3])
                work = (pairs + fired) / (total * block.d_hidden)
                if path == "certified-2":
                    seen[round(fired / (total * block.d_hidden), 4)] = pairs / (total * block.d_hidden)
            points[path].append((work, time_us))
    return statistics.median(dense_times), {path: _fit(p) for path, p in points.items()}


def _fit(points: list[tuple[float, float]]) -> tuple[float, float]:
    """Fixed cost and slope through the sparse end, where decisions fall: exact at the two sparsest points."""
    (w0, t0), (w1, t1) = points[:2]
    slope = max((t1 - t0) / max(w1 - w0, 1e-9), t0 * 0.01)
    return max(t0 - slope * w0, 0.05 * t0), slope


_unsaved: dict[tuple[torch.dtype, str], CostModel] = {}  # where the cache folder cannot be written


def available_paths() -> tuple[str, ...]:
    """The sparse paths that run here."""
    return ("gather",) if choose(plain="gather").operators is None else ("certified-2", "certified-1")


def path_call(packed: PackedBlock, path: str, counts: Tensor, *, isa: int = -1) -> Callable[[Tensor], Tensor]:
    """A path as a callable of ``x``."""
    if path == "gather":
        return functools.partial(gather.sparse_mlp, packed)
    arguments = native.arguments(packed, counts, planes=int(path[-1]), isa=isa)
    return functools.partial(_call, native.op(), arguments)


def _call(op: Callable[..., Tensor], arguments: tuple[object, ...], x: Tensor) -> Tensor:
    return op(x, *arguments)


def fingerprint() -> str:
    """The mark of this machine, its threads and these kernels."""
    facts = load.status()
    return cost_model.fingerprint(f"{facts.isa}:{facts.identity}")


def is_calibrated(dtype: torch.dtype) -> bool:
    """Is there a cost model of this machine, in the cache folder or in this process?"""
    mark = fingerprint()
    return (dtype, mark) in _unsaved or cost_model.cache_file(dtype, mark).exists()


def cost_model_for(
    dtype: torch.dtype, *, recalibrate: bool = False, progress: Callable[[float], None] = lambda done: None
) -> CostModel:
    """The cost model of this machine: from the user's cache folder, else measured now and kept there.

    Where the folder cannot be written, a warning says so and the model is kept for this process.

    Raises:
        CheckpointError: the cached file is corrupt.
    """
    mark = fingerprint()
    path = cost_model.cache_file(dtype, mark)
    if (dtype, mark) in _unsaved and not recalibrate:
        return _unsaved[dtype, mark]
    if path.exists() and not recalibrate:
        return cost_model.read(path, mark)
    model = measure(dtype, progress=progress)
    try:
        cost_model.save(model, path)
    except DataError as error:
        _unsaved[dtype, mark] = model
        warnings.warn(f"The machine's cost model is kept for this process only. {error}", RuntimeWarning, stacklevel=2)
    return model
