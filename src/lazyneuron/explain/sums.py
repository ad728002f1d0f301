"""Sums over the tokens of a block, from which its explanation is made."""

from __future__ import annotations

import dataclasses
import math

import torch
from torch import Tensor

from lazyneuron.blocks.block import MLPBlock
from lazyneuron.explain.capture import Captured


@dataclasses.dataclass(frozen=True, kw_only=True)
class BlockExplanation:
    """Why one block is as sparse as it is.

    Attributes:
        name, activation, gated, neurons: the block.
        samples, tokens: what it was looked at with; tokens are real ones.
        density: share of hidden activations that are not zero.
        derivative_density: share of (token, neuron) pairs with ``s'(p) != 0``.
        derivative_square: mean of ``s'(p)^2``.
        effective_small: share of effective gradients of at most 1 % of their root mean square.
        effective_l1, effective_l2: mean over tokens of ``sum_j |eta_j|`` and of ``sum_j eta_j^2``.
        beneficial, detrimental: shares of pairs with ``eta < 0`` (raising the pre-activation lowers the loss), ``> 0``.
        output_gradient: mean over tokens of ``|gV|``, the gradient with respect to the block's output.
        as_up, as_down: augmented flatness AS_K and AS_V.
        identity_density, identity_residual: the density that the identity predicts from ``as_up``, and its relative
            difference from ``derivative_density``; NaN when nothing fires.
        degenerate: nothing fires, or no gradient arrives.
        hidden_square: ``E |a|^2``.
        hidden_square_times_gradient: ``E [|a|^2 |gV|^2]``.
        gradient_participation: how many directions share the outputs' gradients, ``(tr)^2 / |.|_F^2`` of their Gram
            matrix.
        gram_residual: largest relative difference of ``|K^T eta|^2`` and ``eta^T K K^T eta`` over the tokens.
    """

    name: str
    activation: str
    gated: bool
    neurons: int
    samples: int
    tokens: int
    density: float
    derivative_density: float
    derivative_square: float
    effective_small: float
    effective_l1: float
    effective_l2: float
    beneficial: float
    detrimental: float
    output_gradient: float
    as_up: float
    as_down: float
    identity_density: float
    identity_residual: float
    degenerate: bool
    hidden_square: float
    hidden_square_times_gradient: float
    gradient_participation: float
    gram_residual: float


class Sums:
    """Adds up batches of one block."""

    def __init__(self, block: MLPBlock) -> None:
        self.block = block
        self.samples = self.tokens = 0
        self._sums: dict[str, float] = {}
        self._gram: Tensor | None = None
        self._residual = 0.0

    def add(self, seen: Captured, g: Tensor, gv: Tensor, *, samples: int, real: Tensor | None) -> None:
        """Add one batch.

        Args:
            seen: the block's tensors.
            g: per-sample gradient with respect to what ``down`` receives.
            gv: with respect to what it returns.
            samples: in the batch.
            real: which tokens are, of the token axes' shape; None for all.
        """
        assert seen.x is not None and seen.p is not None and seen.a is not None

        def rows(t: Tensor) -> Tensor:
            flat = t.detach().reshape(-1, t.shape[-1]) if real is None else t.detach()[real]
            return flat.double()

        x, p, a, g, gv = rows(seen.x), rows(seen.p), rows(seen.a), rows(g), rows(gv)
        factor = g if seen.u is None else g * rows(seen.u)
        slope = self.block.activation.derivative(p)
        eta = factor * slope
        lengths, eta_squares = x.square().sum(-1), eta.square()
        eta_lengths, out_lengths, a_lengths = eta_squares.sum(-1), gv.square().sum(-1), a.square().sum(-1)
        flat = slope != 0
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
            "out": out_lengths.sqrt().sum(),
            "as_up": (eta_lengths * lengths).sum(),
            "as_down": (out_lengths * a_lengths).sum(),
            "terms": (lengths[:, None] * eta_squares)[flat].sum(),
            "a2": a_lengths.sum(),
        }.items():
            self._sums[key] = self._sums.get(key, 0.0) + float(value)
        gram = gv.t() @ gv
        self._gram = gram if self._gram is None else self._gram + gram
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
            beneficial=mean("negative", pairs),
            detrimental=mean("positive", pairs),
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
