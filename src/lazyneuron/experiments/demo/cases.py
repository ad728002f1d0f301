"""The inputs on which the demo times its variants, and what it finds on each."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from lazyneuron.blocks import MLPBlock
from lazyneuron.core.errors import DataError
from lazyneuron.experiments.demo.encoder import Batch, padded
from lazyneuron.experiments.demo.latency import Timing, amdahl, latencies
from lazyneuron.measure import SparsityReport, measure, mlp_time_share

ORIGINAL, DENSE, COMPILED, INT8, ACCELERATED = (
    "original",
    "relu dense",
    "relu compiled",
    "relu int8",
    "relu accelerated",
)
SHAPES = ((1, 10), (1, 60), (32, 48))
# an int8 multiply-add of the sketch against one in fp32: four lanes for one
_INT8_COST = 0.25


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """Batches of one shape without padding, made of held-out lines.

    Attributes:
        lines: rows of a batch.
        length: tokens a line.
        batches: several of them, taken in turn, so that no single line decides.
    """

    lines: int
    length: int
    batches: tuple[Batch, ...]

    @property
    def name(self) -> str:
        """Lines x tokens."""
        return f"{self.lines} x {self.length}"


def cases(ids: Sequence[Sequence[int]], *, most: int = 8) -> tuple[Case, ...]:
    """One case for each of :data:`SHAPES`; longer lines are cut, their last token stays.

    Args:
        ids: token ids of held-out lines.
        most: batches a case at most.

    Raises:
        DataError: too few lines are long enough.
    """
    return tuple(_case(ids, lines=lines, length=length, most=most) for lines, length in SHAPES)


def _case(ids: Sequence[Sequence[int]], *, lines: int, length: int, most: int) -> Case:
    exact = [list(row) for row in ids if len(row) == length]
    cut = [[*row[: length - 1], row[-1]] for row in ids if len(row) > length]
    rows = (exact + cut)[: lines * most]
    count = len(rows) // lines
    if not count:
        raise DataError(
            f"Only {len(rows)} of {len(ids)} held-out lines have {length} tokens, {lines} are needed; pass more text."
        )
    batches = tuple(padded(rows[i * lines : (i + 1) * lines]) for i in range(count))
    return Case(lines=lines, length=length, batches=batches)


def timed(
    case: Case,
    variants: Mapping[str, nn.Module],
    *,
    blocks: Mapping[str, Sequence[MLPBlock]],
    seconds: float,
    rounds: int,
    advance: Callable[[float], None],
) -> dict[str, Any]:
    """Time the variants on one case, and say how much of it the MLP blocks take.

    Args:
        case: the case.
        variants: the models by name, :data:`ORIGINAL` and :data:`DENSE` among them.
        blocks: the MLP blocks of those two.
        seconds: how long to time.
        rounds: turns of each variant, even when they take longer.
        advance: told the share that is done.

    Returns:
        The case's entry in the demo's record: ``mlp_share`` and ``ceiling`` (the speed-up if MLP blocks cost nothing)
        belong to the original; ``density_ceiling`` is the speed-up over the dense sparse model if its MLP blocks took
        only the share of bytes or of FLOPs, whichever is smaller, that the density on this very input demands: no
        certified execution can beat that, whether bytes or FLOPs rule.
    """
    timings = {t.variant: t for t in latencies(variants, case.batches, seconds=seconds, least=rounds, on_round=advance)}
    share, dense_share = (_share(variants[name], blocks[name], case.batches) for name in (ORIGINAL, DENSE))
    seen = measure(variants[DENSE], case.batches, blocks=blocks[DENSE])
    remaining = _remaining(seen, case.lines * case.length)
    return {
        "case": case.name,
        "tokens": case.lines * case.length,
        "rows": [dataclasses.asdict(t) for t in timings.values()],
        "mlp_share": share,
        "ceiling": amdahl(share),
        "relu_mlp_share": dense_share,
        "density_ceiling": amdahl(dense_share, remaining=min(remaining, 1.0)),
        "speedup": _ratio(timings, ORIGINAL),
        "speedup_over_relu_dense": _ratio(timings, DENSE),
    }


def _share(model: nn.Module, blocks: Sequence[MLPBlock], batches: Sequence[Batch]) -> float:
    with torch.inference_mode():
        return mlp_time_share(model, batches, blocks=blocks, repeats=3)


def _ratio(timings: Mapping[str, Timing], base: str) -> float | None:
    if ACCELERATED not in timings:
        return None
    return timings[base].median_ms / timings[ACCELERATED].median_ms


def _remaining(report: SparsityReport, tokens: int) -> float:
    """The share of a dense step's bytes or FLOPs, whichever is smaller, that sparse execution of the blocks needs."""
    shares = []
    for block in report.blocks:
        windows = [t for t in block.traffic if t.tokens <= tokens]
        if not windows:
            continue
        step = windows[-1]
        flops = (step.certified_flops_at_least + _INT8_COST * step.sketch_int_ops) / step.dense_flops
        shares.append(min(1 / step.speedup_ceiling_from_bytes, flops))
    return statistics.mean(shares) if shares else 1.0
