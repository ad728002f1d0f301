"""Sums over the tokens of a block, from which its explanation is made."""

from __future__ import annotations

import dataclasses
import math

import torch
from torch import Tensor

from lazyneuron.blocks.block import MLPBlock
from lazyneuron.explain.block_explanation import BlockExplanation
from lazyneuron.explain.capture import Captured
from lazyneuron.explain.diagonality import Diagonality, diagonality
from lazyneuron.explain.gradient_histogram import GradientHistogram

_FEW = 64  # tokens of a batch that the statistics with a cost of neurons^2 a token look at


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
        self._residual = 0.0

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
            flat = t.detach().reshape(-1, t.shape[-1]) if real is None else t.detach()[real]
            return flat.double()

        x, p, a, g, gv = rows(seen.x), rows(seen.p), rows(seen.a), rows(g) / scale, rows(gv) / scale
        factor = g if seen.u is None else g * rows(seen.u)
        slope = self.block.activation.derivative(p)
        eta = factor * slope
        lengths, eta_squares = x.square().sum(-1), eta.square()
        eta_lengths, out_lengths, a_lengths = eta_squares.sum(-1), gv.square().sum(-1), a.square().sum(-1)
        g_squares, flat = factor.square(), slope != 0
        self.samples += samples
        self.tokens += len(x)
        root = float(eta_squares.mean().sqrt()) if eta.numel() else 0.0
        for key, value in {
            "fired": (a != 0).sum(),
            "sloped": flat.sum(),
            "slope2": slope.square().sum(),
            "small": (eta.abs() <= 0.01 * root).sum(),
            "l1": eta.abs().sum(),
            "l2": eta_squares.sum(),
            "negative": (eta < 0).sum(),
            "positive": (eta > 0).sum(),
            "negative sum": eta.clamp(max=0).sum(),
            "positive sum": eta.clamp(min=0).sum(),
            "g2": g_squares.sum(),
            "g2 active": (g_squares * (eta != 0)).sum(),
            **{f"below {t}": (eta.abs() < t).sum() for t in self.wanted.thresholds},
            "out": out_lengths.sqrt().sum(),
            "as_up": (eta_lengths * lengths).sum(),
            "as_down": (out_lengths * a_lengths).sum(),
            "terms": (lengths[:, None] * eta_squares)[flat].sum(),
            "a2": a_lengths.sum(),
        }.items():
            self._sums[key] = self._sums.get(key, 0.0) + float(value)
        gram = gv.t() @ gv
        self._gram = gram if self._gram is None else self._gram + gram
        if self._histogram is not None:
            self._histogram = self._histogram.plus(factor, eta)
        if self.wanted.diagonality and len(factor):
            few = factor[:: max(1, len(factor) // _FEW)][:_FEW]
            self._diagonals.append((len(few), diagonality(self.block.switch.weight.detach(), few)))
        self._residual = max(self._residual, _gram_residual(self.block.switch.weight.detach().double(), eta))

    def result(self) -> BlockExplanation:
        """The explanation; NaN where nothing was seen."""
        s = self._sums
        neurons = self.block.d_hidden
        pairs, tokens = self.tokens * neurons, self.tokens

        def mean(key: str, count: int) -> float:
            return s.get(key, 0.0) / count if count else math.nan

        density = mean("sloped", pairs)
        as_up = mean("as_up", self.samples)
        fired = int(s.get("sloped", 0))
        coefficient = tokens / self.samples * neurons * s["terms"] / fired if fired and self.samples else math.nan
        degenerate = not coefficient > 0
        predicted = math.nan if degenerate else as_up / coefficient
        active = int(s.get("negative", 0) + s.get("positive", 0))
        ratio = mean("g2 active", active) / mean("g2", pairs) if s.get("g2", 0.0) > 0 else math.nan
        return BlockExplanation(
            name=self.block.name,
            activation=self.block.activation.kind,
            gated=self.block.gate is not None,
            neurons=neurons,
            samples=self.samples,
            tokens=tokens,
            density=mean("fired", pairs),
            derivative_density=density,
            derivative_square=mean("slope2", pairs),
            effective_small=mean("small", pairs),
            effective_l1=mean("l1", tokens),
            effective_l2=mean("l2", tokens),
            effective_below=tuple((t, mean(f"below {t}", pairs)) for t in self.wanted.thresholds),
            beneficial=mean("negative", pairs),
            detrimental=mean("positive", pairs),
            beneficial_mean=mean("negative sum", int(s.get("negative", 0))),
            detrimental_mean=mean("positive sum", int(s.get("positive", 0))),
            hidden_gradient_square=mean("g2", tokens),
            active_gradient_ratio=ratio,
            weight_square=float(self.block.switch.weight.detach().double().square().sum()),
            output_gradient=mean("out", tokens),
            as_up=as_up,
            as_down=mean("as_down", self.samples),
            identity_density=predicted,
            identity_residual=math.nan if degenerate else abs(predicted - density) / density,
            degenerate=degenerate,
            hidden_square=mean("a2", tokens),
            hidden_square_times_gradient=mean("as_down", tokens),
            gradient_participation=math.nan if self._gram is None else _participation(self._gram),
            gram_residual=self._residual,
            diagonality=Diagonality.mean(self._diagonals) if self._diagonals else None,
            histogram=self._histogram,
        )


def _gram_residual(weight: Tensor, eta: Tensor) -> float:
    """On a few tokens, since the right side costs neurons^2 operations for each."""
    few = eta[:: max(1, len(eta) // 8)][:8]
    left = (few @ weight).square().sum(-1)
    right = ((few @ (weight @ weight.t())) * few).sum(-1)
    scale = left.abs().clamp(min=torch.finfo(torch.float64).tiny)
    return float(((left - right).abs() / scale).max()) if len(few) else 0.0


def _participation(gram: Tensor) -> float:
    squares = float(gram.square().sum())
    return float(gram.trace()) ** 2 / squares if squares > 0 else math.nan
