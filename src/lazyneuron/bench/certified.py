"""Certified execution as candidates of the benchmark: each path by itself, and what the dispatcher makes of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from lazyneuron.accelerate import calibrate
from lazyneuron.accelerate.choice import bucket_of, from_cost_model
from lazyneuron.accelerate.dense import dense
from lazyneuron.accelerate.execution import BlockExecution
from lazyneuron.accelerate.freshness import Freshness
from lazyneuron.accelerate.timing import interleaved_us
from lazyneuron.blocks import MLPBlock
from lazyneuron.ops.choice import choose
from lazyneuron.ops.sparse_mlp import native
from lazyneuron.ops.sparse_mlp.packed import PackedBlock, Weights

Call = Callable[[Tensor], Tensor]
PATHS = ("certified-2", "certified-1")
_TUNING_S = 0.15


@dataclasses.dataclass(frozen=True, kw_only=True)
class Path:
    """One path and the shares that it counts while it runs.

    Attributes:
        run: the callable.
        counts: what the kernel adds to, or None for a path that counts nothing.
    """

    run: Call
    counts: Tensor | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Dispatched:
    """A block as `accelerate_` executes it.

    Attributes:
        chosen: the path at first.
        run: the callable.
        now: the path at present; it follows the density that is seen.
    """

    chosen: str
    run: Call
    now: Callable[[], str]


def at_density(packed: PackedBlock, density: float) -> PackedBlock:
    """The same weights with the bias that makes this share fire."""
    return calibrate.with_bias(packed, calibrate.firing_bias(density))


def usable_paths(weights: str) -> dict[str, str | None]:
    """Path -> None when it runs here, else the reason why not."""
    reason = choose(plain="gather").reason
    if reason is None:
        return dict.fromkeys(PATHS)
    return dict.fromkeys(PATHS, reason) | ({"gather": None} if weights == "keep" else {})


def make_paths(packed: PackedBlock, names: list[str]) -> dict[str, Path]:
    """The paths that run here."""
    made = {}
    for name in names:
        counts = native.new_counts()
        call = calibrate.path_call(packed, name, counts)
        made[name] = Path(run=call, counts=None if name == "gather" else counts)
    return made


def dispatch(
    block: MLPBlock,
    packed: PackedBlock,
    *,
    paths: Mapping[str, Path],
    inputs: list[Tensor],
    shares: tuple[float, float],
    weights: Weights,
) -> Dispatched:
    """What a user gets: the machine's cost model corrected on the block's own inputs, then run with all its checks.

    Args:
        block: the dense block.
        packed: its packed weights.
        paths: those that run here.
        inputs: of the case.
        shares: computed and firing share of the inputs, for paths that count nothing.
        weights: as packed.

    Returns:
        The chosen path and the callable that takes it.
    """
    size = sum(site.weight.numel() for site in block.linears)
    kind = torch.bfloat16 if packed.dtype == torch.float16 else packed.dtype
    model = calibrate.cost_model_for(kind)
    known = tuple(name for name in paths if name in model.lines)
    candidates = from_cost_model(model, weights=size, gated=block.gate is not None, paths=known)
    plain = dense(block)
    runs = [plain, *(paths[name].run for name in known)]
    calls = [lambda k, run=run: run(inputs[k % len(inputs)]) for run in runs]
    dense_us, *times_us = interleaved_us(calls, rounds=15, budget_s=_TUNING_S, warmup=1)
    seen = {name: _shares(paths[name], packed, shares) for name in known}
    bucket = bucket_of(len(inputs[0]))
    measured = {name: (time_us, seen[name]) for name, time_us in zip(known, times_us, strict=True)}
    candidates = candidates.corrected(bucket, dense_us, measured)
    table = candidates.choose(seen)
    if set(table) == {"dense"} and not candidates.worth_probing(0):  # accelerate_ leaves such a block alone
        return Dispatched(chosen="dense", run=plain, now=lambda: "dense")
    execution = BlockExecution(
        block, packed, freshness=Freshness(block), candidates=candidates, table=table, shares=seen, weights=weights
    )

    def run(x: Tensor) -> Tensor:
        y = execution(x)
        return plain(x) if y is None else y

    return Dispatched(chosen=table[bucket], run=run, now=lambda: execution.following.table[bucket])


def _shares(path: Path, packed: PackedBlock, otherwise: tuple[float, float]) -> tuple[float, float]:
    if path.counts is None or int(path.counts[2]) == 0:
        return otherwise
    pairs = int(path.counts[2]) * packed.d_hidden
    return int(path.counts[0]) / pairs, int(path.counts[1]) / pairs
