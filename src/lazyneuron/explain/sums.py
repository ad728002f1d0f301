"""Sums over the tokens of a block, from which its explanation is made."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

import torch
from torch import Tensor

from lazyneuron.blocks.block import MLPBlock
from lazyneuron.core.errors import DataError
from lazyneuron.explain.block_explanation import BlockExplanation
from lazyneuron.explain.capture import Captured
from lazyneuron.explain.diagonality import Diagonality, diagonality
from lazyneuron.explain.gradient_histogram import GradientHistogram

_ENTRIES_AT_ONCE = 1 << 16  # entries of an activation worked on at a time: half a megabyte in float64
_FEW = 64  # tokens at a time that the statistics with a cost of neurons^2 a token look at


@dataclasses.dataclass(frozen=True, kw_only=True)
class Wanted:
    """What is computed on request only."""

    thresholds: tuple[float, ...] = ()
    diagonality: bool = False
    histograms: bool = False


class Sums:
    """Adds up batches of one block."""

    def __init__(self, block: MLPBlock, wanted: Wanted | None = None) -> None:
        self.block = block
        self.wanted = wanted or Wanted()
        self._diagonals: list[tuple[int, Diagonality]] = []
        self._histogram = GradientHistogram.empty() if self.wanted.histograms else None
        self.samples = self.tokens = 0
        self._sums: dict[str, float] = {}
        self._gram: Tensor | None = None
        self._residual: float | None = None

    def add(
        self, seen: Captured, g: Tensor, gv: Tensor, *, samples: int, real: Tensor | None, scale: float = 1.0
    ) -> None:
        """Add one batch.

        Args:
            seen: the block's tensors.
            g: per-sample gradient with respect to what ``down`` receives, times ``scale``.
            gv: with respect to what it returns.
            samples: in the batch.
            real: which tokens are, of the token axes' shape; None for all.
            scale: of the loss.
        """
        assert seen.x is not None and seen.p is not None and seen.a is not None

        def rows(t: Tensor) -> Tensor:
            return t.detach().reshape(-1, t.shape[-1]) if real is None else t.detach()[real]

        x, p, a, g, gv = rows(seen.x), rows(seen.p), rows(seen.a), rows(g), rows(gv)
        u = None if seen.u is None else rows(seen.u)
        etas, rows_at_once = [], max(1, _ENTRIES_AT_ONCE // max(p.shape[-1], 1))
        for start in range(0, len(x), rows_at_once):
            part = slice(start, start + rows_at_once)
            factor = g[part].double() / scale if u is None else g[part].double() * u[part].double() / scale
            etas.append(
                self._add_part(x[part].double(), p[part].double(), a[part].double(), factor, gv[part].double() / scale)
            )
            if u is not None:
                self._add_gated(x[part].double(), p[part].double(), g[part].double() / scale)
        if not math.isfinite(self._sums.get("g2", 0.0)):
            raise DataError(
                f"Gradients at the block {self.block.name!r} are not finite with a loss scale of {scale:g}; lower the "
                "scale, or look at the model in float32."
            )
        self.samples += samples
        self.tokens += len(x)
        squares = sum(float(eta.square().sum()) for eta in etas)
        small = 0.01 * math.sqrt(squares / max(p.numel(), 1))
        self._plus({"small": sum(int((eta.abs() <= small).count_nonzero()) for eta in etas)})
        if self._residual is None and len(x):
            few = torch.cat([etas[0][:1], etas[-1][-1:]])
            self._residual = _gram_residual(self.block.first.weight.detach(), few)

    def _add_part(self, x: Tensor, p: Tensor, a: Tensor, g: Tensor, gv: Tensor) -> Tensor:
        """Add some tokens; few enough that what is computed of them stays in the cache. Returns eta."""
        slope = self.block.activation.derivative(p)
        eta = g * slope
        lengths, squares, g_squares = x.square().sum(-1), eta.square(), g.square()
        out_lengths, a_lengths = gv.square().sum(-1), a.square().sum(-1)
        fires, raising = eta != 0, eta.clamp(min=0)
        self._plus(
            {
                "fired": a.count_nonzero(),
                "sloped": slope.count_nonzero(),
                "slope2": slope.square().sum(),
                "l1": 2 * raising.sum() - eta.sum(),
                "l2": squares.sum(),
                "active": fires.count_nonzero(),
                "positive": raising.count_nonzero(),
                "positive sum": raising.sum(),
                "g2": g_squares.sum(),
                "g2 active": (g_squares * fires).sum(),
                "x2": lengths.sum(),
                "out": out_lengths.sqrt().sum(),
                "out2": out_lengths.sum(),
                "as_up": (squares.sum(-1) * lengths).sum(),
                "as_down": (out_lengths * a_lengths).sum(),
                "terms": (lengths @ squares).sum(),  # squares are 0 where the slope is
                "a2": a_lengths.sum(),
                **{f"below {t}": (eta.abs() < t).count_nonzero() for t in self.wanted.thresholds},
            }
        )
        gram = gv.t() @ gv
        self._gram = gram if self._gram is None else self._gram + gram
        if self._histogram is not None:
            self._histogram = self._histogram.plus(g, eta)
        if self.wanted.diagonality:
            few = g[:: max(1, len(g) // _FEW)][:_FEW]
            self._diagonals.append((len(few), diagonality(self.block.first.weight.detach(), few)))
        return eta

    def _add_gated(self, x: Tensor, p: Tensor, g: Tensor) -> None:
        """Add to the second identity, in which the function's value stands where its derivative does in the first."""
        value, lengths = self.block.activation(p), x.square().sum(-1)
        squares = (value * g).square()
        self._plus(
            {
                "valued": value.count_nonzero(),
                "as gated": (squares.sum(-1) * lengths).sum(),
                "gated terms": (lengths @ (squares * (value != 0))).sum(),
            }
        )

    def _plus(self, values: Mapping[str, Tensor | int]) -> None:
        for key, value in values.items():
            self._sums[key] = self._sums.get(key, 0.0) + float(value)

    def result(self) -> BlockExplanation:
        """The explanation; NaN where nothing was seen."""
        s = self._sums
        neurons = self.block.d_hidden
        pairs, tokens = self.tokens * neurons, self.tokens

        def mean(key: str, count: int) -> float:
            return s.get(key, 0.0) / count if count else math.nan

        def identity(flatness: str, terms: str, fired: str) -> tuple[float, float]:
            """The density that flatness and coefficient give, and how far it is from the one that was counted."""
            count = int(s.get(fired, 0))
            coefficient = tokens / self.samples * neurons * s[terms] / count if count and self.samples else math.nan
            if not coefficient > 0:
                return math.nan, math.nan
            found = mean(flatness, self.samples) / coefficient
            return found, abs(found * pairs / count - 1)

        predicted, residual = identity("as_up", "terms", "sloped")
        gated, gated_residual = identity("as gated", "gated terms", "valued")
        is_gated = self.block.gate is not None
        active, positive = int(s.get("active", 0)), int(s.get("positive", 0))
        above = s.get("positive sum", 0.0)
        ratio = mean("g2 active", active) / mean("g2", pairs) if s.get("g2", 0.0) > 0 else math.nan
        return BlockExplanation(
            name=self.block.name,
            activation=self.block.activation.kind,
            gated=is_gated,
            neurons=neurons,
            samples=self.samples,
            tokens=tokens,
            density=mean("fired", pairs),
            derivative_density=mean("sloped", pairs),
            derivative_square=mean("slope2", pairs),
            effective_small=mean("small", pairs),
            effective_l1=mean("l1", tokens),
            effective_l2=mean("l2", tokens),
            effective_below=tuple((t, mean(f"below {t}", pairs)) for t in self.wanted.thresholds),
            beneficial=mean("active", pairs) - mean("positive", pairs),
            detrimental=mean("positive", pairs),
            beneficial_mean=(above - s["l1"]) / (active - positive) if active > positive else math.nan,
            detrimental_mean=mean("positive sum", positive),
            hidden_gradient_square=mean("g2", tokens),
            active_gradient_ratio=ratio,
            input_square=mean("x2", tokens),
            weight_square=float(self.block.first.weight.detach().double().square().sum()),
            output_gradient=mean("out", tokens),
            output_gradient_square=mean("out2", tokens),
            as_up=mean("as_up", self.samples),
            as_down=mean("as_down", self.samples),
            identity_density=predicted,
            identity_residual=residual,
            degenerate=math.isnan(predicted),
            hidden_square=mean("a2", tokens),
            hidden_square_times_gradient=mean("as_down", tokens),
            hidden_square_predicted=s["as_down"] / s["out2"] if s.get("out2", 0.0) > 0 else math.nan,
            gated_flatness=mean("as gated", self.samples) if is_gated else math.nan,
            gated_density=mean("valued", pairs) if is_gated else math.nan,
            gated_identity_density=gated,
            gated_identity_residual=gated_residual,
            gradient_participation=math.nan if self._gram is None else _participation(self._gram),
            gram_residual=self._residual or 0.0,
            diagonality=Diagonality.mean(self._diagonals) if self._diagonals else None,
            histogram=self._histogram,
        )


def _gram_residual(weight: Tensor, etas: Tensor) -> float:
    """Over a few tokens, since the right side costs the square of the neurons that fire for each."""
    found = [0.0]
    for eta in etas:
        there = eta != 0
        k, e = weight[there].double(), eta[there]
        left, right = float((e @ k).square().sum()), float(e @ (k @ k.t()) @ e)
        found.append(abs(left - right) / max(abs(left), torch.finfo(torch.float64).tiny))
    return max(found)


def _participation(gram: Tensor) -> float:
    squares = float(gram.square().sum())
    return float(gram.trace()) ** 2 / squares if squares > 0 else math.nan
