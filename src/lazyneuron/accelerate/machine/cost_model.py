"""What a block costs, dense and on each sparse path: interpolated from times on a grid."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence

from lazyneuron.accelerate.path import DENSE, Path


@dataclasses.dataclass(frozen=True, kw_only=True)
class Line:
    """Time in us as a function of work: ``fixed + slope * work``, work in rows computed per neuron and token."""

    fixed_us: float
    slope_us: float

    def __call__(self, work: float) -> float:
        """The time at some work."""
        return self.fixed_us + self.slope_us * work


@dataclasses.dataclass(frozen=True, kw_only=True)
class CostModel:
    """Measured times of plain blocks of one dtype, on a grid of shapes and token counts.

    Attributes:
        dtype: e.g. ``"float32"``.
        fingerprint: the machine and the software that it was measured with.
        shapes: the (d_in, d_hidden) that were measured, small first.
        tokens: the token counts that were measured, small first.
        dense_us: [shape][tokens].
        lines: path -> [shape][tokens] of (fixed, slope) in us.
        computed: pairs of (firing share, computed share) seen while measuring, sorted.
    """

    dtype: str
    fingerprint: str
    shapes: tuple[tuple[int, int], ...]
    tokens: tuple[int, ...]
    dense_us: tuple[tuple[float, ...], ...]
    lines: Mapping[Path, tuple[tuple[tuple[float, float], ...], ...]]
    computed: tuple[tuple[float, float], ...]

    def dense(self, weights: int, tokens: int) -> float:
        """Predicted us of a dense block with ``weights`` parameters (``d_hidden (d_in + d_out)``, gated one more)."""
        return self._interpolated(self.dense_us, weights, tokens)

    def line(self, path: Path, weights: int, tokens: int) -> Line | None:
        """Predicted cost line of a path, or None when the path was not measured here."""
        if path not in self.lines:
            return None
        fixed = [[cell[0] for cell in row] for row in self.lines[path]]
        slope = [[cell[1] for cell in row] for row in self.lines[path]]
        return Line(
            fixed_us=self._interpolated(fixed, weights, tokens), slope_us=self._interpolated(slope, weights, tokens)
        )

    def computed_share(self, firing: float) -> float:
        """The computed share that goes with a firing share on normally distributed pre-activations."""
        below = (0.0, self.computed[0][1] if self.computed else 0.02)
        points = [below, *self.computed, (1.0, 1.0)]
        for (a0, c0), (a1, c1) in itertools.pairwise(points):
            if firing <= a1:
                return c0 + (c1 - c0) * (firing - a0) / max(a1 - a0, 1e-9)
        return 1.0

    def _interpolated(self, grid: Sequence[Sequence[float]], weights: int, tokens: int) -> float:
        sizes = [math.log2(2 * d * h) for d, h in self.shapes]
        counts = [math.log2(t) for t in self.tokens]
        rows = [_along(counts, [math.log2(max(v, 1e-3)) for v in row], math.log2(max(tokens, 1))) for row in grid]
        return float(2 ** _along(sizes, rows, math.log2(max(weights, 2))))


def _along(xs: Sequence[float], ys: Sequence[float], x: float) -> float:
    """Piecewise linear through (xs, ys); beyond the last point the slope is at least proportional growth's share."""
    if len(xs) == 1:
        return ys[0] + (x - xs[0])
    k = max(0, min(len(xs) - 2, sum(x > v for v in xs[1:])))
    slope = (ys[k + 1] - ys[k]) / (xs[k + 1] - xs[k])
    if x > xs[-1]:
        return ys[-1] + max(slope, 0.5) * (x - xs[-1])
    return ys[k] + slope * (x - xs[k])


def check_costs(model: CostModel) -> None:
    """Raise ValueError unless these are costs that could have been measured."""
    grids = [model.dense_us, *model.lines.values()]
    if DENSE in model.lines:
        raise ValueError("dense is no sparse path")
    if any(len(g) != len(model.shapes) or any(len(r) != len(model.tokens) for r in g) for g in grids):
        raise ValueError("its grid is incomplete")
    sizes = [d * h for d, h in model.shapes if d > 0 and h > 0]
    for axis, wanted in ((sizes, len(model.shapes)), ([t for t in model.tokens if t > 0], len(model.tokens))):
        if not axis or len(axis) != wanted or any(a >= b for a, b in itertools.pairwise(axis)):
            raise ValueError("its shapes or token counts do not ascend from 1")
    times = [v for row in model.dense_us for v in row]
    times += [v for grid in model.lines.values() for row in grid for cell in row for v in cell]
    if not all(v > 0 and math.isfinite(v) for v in times):
        raise ValueError("it holds impossible times")
    firing = [f for f, _ in model.computed]
    if firing != sorted(firing) or not all(0 <= v <= 1 for point in model.computed for v in point):
        raise ValueError("it holds impossible shares")
