"""How large gradients are, counted by their order of magnitude."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

LOW, HIGH, BINS = -20.0, 5.0, 250  # log10; ten bins for each order of magnitude


@dataclasses.dataclass(frozen=True, kw_only=True)
class GradientHistogram:
    """Counts of ``log10 |g|`` in bins of a tenth, from -20 to 5; what lies beyond is in the outermost ones.

    Attributes:
        every: over all (token, neuron) pairs whose gradient is not 0.
        active: over those with ``eta != 0``.
        zeros: pairs whose gradient is 0.
    """

    every: tuple[int, ...]
    active: tuple[int, ...]
    zeros: int

    @staticmethod
    def empty() -> GradientHistogram:
        """No pair yet."""
        return GradientHistogram(every=(0,) * BINS, active=(0,) * BINS, zeros=0)

    def plus(self, g: Tensor, eta: Tensor) -> GradientHistogram:
        """With the pairs of another batch.

        Args:
            g: gradients with respect to what the activation function returns, any shape.
            eta: effective gradients, of the same shape.
        """
        there = g != 0
        every, active = _counts(g[there]), _counts(g[there & (eta != 0)])
        return GradientHistogram(
            every=tuple(a + b for a, b in zip(self.every, every, strict=True)),
            active=tuple(a + b for a, b in zip(self.active, active, strict=True)),
            zeros=self.zeros + int((~there).sum()),
        )


def _counts(g: Tensor) -> list[int]:
    logs = g.double().abs().log10()
    at = ((logs - LOW) / (HIGH - LOW) * BINS).floor().long().clamp(0, BINS - 1)
    counts: list[int] = torch.bincount(at, minlength=BINS).tolist()
    return counts
