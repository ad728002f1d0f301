"""Which path a block takes for how many tokens, and how that follows the density that is seen."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from lazyneuron.accelerate.machine.cost_model import CostModel, Line
from lazyneuron.accelerate.path import DENSE, Path, Shares, SharesByPath
from lazyneuron.blocks.block import MLPBlock

BUCKETS = 13  # bucket k holds 2^(k-1) < tokens <= 2^k; the last one holds everything above 2048 too
GAIN_WANTED = 0.95  # a sparse path must be predicted at least this much below dense
Table = tuple[Path, ...]  # the path of every bucket


def bucket_of(tokens: int) -> int:
    """The bucket of a token count."""
    return min(max(tokens - 1, 0).bit_length(), BUCKETS - 1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Candidates:
    """Predicted or measured cost of every path in every bucket, as functions of the work that the data ask for.

    Attributes:
        dense_us: [bucket].
        lines: path -> [bucket].
        rows: weight rows computed for a neuron that fires beyond the first (1: ``down``; 2: ``up`` and ``down``).
        checks_us: [bucket] what a sparse call takes beside its path, which ``lines`` leave out.
    """

    dense_us: tuple[float, ...]
    lines: Mapping[Path, tuple[Line, ...]]
    rows: int
    checks_us: tuple[float, ...] = (0.0,) * BUCKETS

    def work(self, shares: Shares) -> float:
        """The work at some shares."""
        return shares.computed + self.rows * shares.fired

    def choose(self, shares: SharesByPath) -> Table:
        """The path of every bucket."""
        return tuple(self._best(bucket, shares) for bucket in range(len(self.dense_us)))

    def time_us(self, path: Path, bucket: int, shares: SharesByPath) -> float:
        """The time of a call on a path, its checks included."""
        if path is DENSE:
            return self.dense_us[bucket]
        return self.lines[path][bucket](self.work(shares[path])) + self.checks_us[bucket]

    def worth_probing(self, bucket: int) -> bool:
        """Could some path win in this bucket if less fired?"""
        most = GAIN_WANTED * self.dense_us[bucket] - self.checks_us[bucket]
        return any(lines[bucket].fixed_us < most for lines in self.lines.values())

    def corrected(self, bucket: int, dense_us: float, measured: Mapping[Path, tuple[float, Shares]]) -> Candidates:
        """The same with one bucket's fixed costs moved so that they reproduce measured times, without checks.

        Args:
            bucket: the one that was measured.
            dense_us: measured time of dense.
            measured: path -> time in us, and the shares at it.
        """
        dense = list(self.dense_us)
        dense[bucket] = dense_us
        lines = {path: list(row) for path, row in self.lines.items()}
        for path, (time_us, shares) in measured.items():
            slope, at = lines[path][bucket].slope_us, self.work(shares)
            fixed = max(time_us - slope * at, 0.2 * time_us)
            lines[path][bucket] = Line(fixed_us=fixed, slope_us=(time_us - fixed) / at if at > 0 else slope)
        return dataclasses.replace(self, dense_us=tuple(dense), lines={path: tuple(row) for path, row in lines.items()})

    def _best(self, bucket: int, shares: SharesByPath) -> Path:
        times = {path: self.time_us(path, bucket, shares) for path in self.lines}
        path = min(times, key=lambda p: times[p], default=DENSE)
        return path if times and times[path] < GAIN_WANTED * self.dense_us[bucket] else DENSE


def predict_candidates(block: MLPBlock, model: CostModel, paths: tuple[Path, ...]) -> Candidates:
    """Candidates of a block, predicted from the cost model of its dtype."""
    weights = sum(site.weight.numel() for site in block.linears)
    return from_cost_model(model, weights=weights, gated=block.gate is not None, paths=paths)


def from_cost_model(model: CostModel, *, weights: int, gated: bool, paths: tuple[Path, ...]) -> Candidates:
    """Candidates predicted from the machine's cost model.

    Args:
        model: of the block's dtype.
        weights: parameters of the block's matrices.
        gated: whether one of three matrices is a gate.
        paths: the paths that may be taken.
    """
    tokens = [2**k for k in range(BUCKETS)]
    plain = weights * 2 // 3 if gated else weights  # the lines were measured on two matrices
    lines = {path: tuple(line for t in tokens if (line := model.line(path, plain, t)) is not None) for path in paths}
    return Candidates(
        dense_us=tuple(model.dense(weights, t) for t in tokens),
        lines={path: row for path, row in lines.items() if len(row) == BUCKETS},
        rows=2 if gated else 1,
    )
