"""Decide for one block: measure its paths on its own inputs, or trust the cost model when there are none."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from lazyneuron.accelerate.path import DENSE, GATHER, Path, Shares, SharesByPath
from lazyneuron.accelerate.policy.choice import BUCKETS, GAIN_WANTED, Candidates, Table
from lazyneuron.blocks.block import MLPBlock
from lazyneuron.core.timing import least_us
from lazyneuron.ops.sparse_mlp import native
from lazyneuron.ops.sparse_mlp.packed import PackedBlock

BUDGET_S = 0.6  # for one block
PREDICTIONS_ERR = 1.5  # a measured ratio to dense that is worse by more than this is doubted
_ASSUMED_FIRING = 0.1  # without data: the first review corrects it


@dataclasses.dataclass(frozen=True, kw_only=True)
class Decision:
    """What was found out about a block.

    Attributes:
        candidates: cost lines, corrected by what was measured.
        table: the path of every bucket of token counts.
        shares: of every path on the block's inputs.
        times: bucket -> path -> the least of the measured times in us.
        disputed: bucket -> path -> how many times slower, beside dense, the path was measured than predicted, where
            that decides against it.
    """

    candidates: Candidates
    table: Table
    shares: SharesByPath
    times: Mapping[int, Mapping[Path, float]]
    disputed: Mapping[int, Mapping[Path, float]] = dataclasses.field(default_factory=dict)


@torch.no_grad()
def decide(
    block: MLPBlock, packed: PackedBlock, candidates: Candidates, inputs: Tensor | None, *, isa: int
) -> Decision:
    """Choose the path of every bucket.

    Args:
        block: the block.
        packed: its packed weights.
        candidates: predicted costs.
        inputs: (tokens, d_in) rows that the block really saw, or None.
        isa: kernel level, or -1.

    Returns:
        The decision; at most 0.6 s of measuring.
    """
    if inputs is None or len(inputs) == 0:
        shares = dict.fromkeys(candidates.lines, Shares(2 * _ASSUMED_FIRING, _ASSUMED_FIRING))
        return Decision(candidates=candidates, table=candidates.choose(shares), shares={}, times={})
    shares = _shares(packed, candidates, inputs, isa)
    times: dict[int, dict[Path, float]] = {}
    disputed: dict[int, dict[Path, float]] = {}
    began = time.perf_counter()
    most = len(inputs).bit_length() - 1
    # the extremes first, so that a short budget still covers both ends
    for bucket in sorted(range(min(most, BUCKETS - 1) + 1), key=lambda k: (k not in (0, 4, most), k)):
        if time.perf_counter() - began > BUDGET_S:
            break
        seen = times[bucket] = _time_bucket(block, packed, candidates, inputs, 2**bucket, isa)
        doubts = _doubts(candidates, bucket, shares, seen)
        if doubts:  # once more: a machine that was busy then may be free now
            again = _time_bucket(block, packed, candidates, inputs, 2**bucket, isa)
            seen = times[bucket] = {path: min(seen[path], again[path]) for path in seen}
            doubts = _doubts(candidates, bucket, shares, seen)
        if doubts:
            disputed[bucket] = doubts
        # half-way (on a logarithmic scale) between a measurement and a prediction that dispute each other
        believed = {path: seen[path] / doubts.get(path, 1.0) ** 0.5 for path in candidates.lines}
        measured = {path: (believed[path], shares[path]) for path in candidates.lines}
        candidates = candidates.corrected(bucket, seen[DENSE], measured)
    return Decision(
        candidates=candidates, table=candidates.choose(shares), shares=shares, times=times, disputed=disputed
    )


def _doubts(candidates: Candidates, bucket: int, shares: SharesByPath, seen: Mapping[Path, float]) -> dict[Path, float]:
    """Paths that were predicted to win and measured to lose, by more than predictions err: path -> by how much."""
    doubts = {}
    for path in candidates.lines:
        predicted = candidates.time_us(path, bucket, shares) / candidates.time_us(DENSE, bucket, shares)
        measured = (seen[path] + candidates.checks_us[bucket]) / seen[DENSE]
        if predicted < GAIN_WANTED <= measured and measured > PREDICTIONS_ERR * predicted:
            doubts[path] = measured / predicted
    return doubts


def _shares(packed: PackedBlock, candidates: Candidates, inputs: Tensor, isa: int) -> dict[Path, Shares]:
    shares: dict[Path, Shares] = {}
    for path in candidates.lines:
        if path is GATHER:
            z = F.linear(inputs, packed.first_rows, packed.first_bias)
            fires = packed.activation(z) != 0
            if packed.rectifies_up and packed.up_rows is not None:
                fires &= F.linear(inputs, packed.up_rows, packed.up_bias) > 0
            firing = float(fires.float().mean())
            shares[path] = Shares(firing, firing)
            continue
        counts = native.new_counts()
        path.runner(packed, counts, isa=isa)(inputs)
        pairs = int(counts[2]) * packed.d_hidden
        shares[path] = Shares(int(counts[0]) / pairs, int(counts[1]) / pairs)
    return shares


def _time_bucket(
    block: MLPBlock, packed: PackedBlock, candidates: Candidates, inputs: Tensor, tokens: int, isa: int
) -> dict[Path, float]:
    windows = [inputs[k : k + tokens] for k in range(0, len(inputs) - tokens + 1, tokens)][:16]
    counts = native.new_counts()
    runs = {DENSE: block.forward} | {path: path.runner(packed, counts, isa=isa) for path in candidates.lines}
    calls = [lambda k, run=run: run(windows[k % len(windows)]) for run in runs.values()]
    times = least_us(calls, rounds=15, budget_s=BUDGET_S / 6)
    return dict(zip(runs, times, strict=True))
