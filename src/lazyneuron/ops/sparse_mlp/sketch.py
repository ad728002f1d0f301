"""The int8 sketch of a weight matrix that the operator reads, with the numbers that make its verdict a proof."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

PANEL = 64  # neurons a panel, as in csrc/problem.h


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sketch:
    """An int8 sketch of a weight of shape (d_hidden, d_in), packed in panels of 64 neurons.

    Attributes:
        panels: uint8 (padded_hidden / 64, padded_in / 4, 64, 4), each ``q + 128``; padding holds 128.
        certificate: float32 (6, padded_hidden): scale, bias, slack, quantised, absolute, limit.
        d_hidden, d_in: the weight's shape.
    """

    panels: Tensor
    certificate: Tensor
    d_hidden: int
    d_in: int

    @property
    def bytes(self) -> int:
        """Memory that the sketch adds."""
        return self.panels.numel() + 4 * self.certificate.numel()

    def quantised_rows(self) -> Tensor:
        """The integers ``q`` as int8 (d_hidden, d_in)."""
        rows = self.panels.permute(0, 2, 1, 3).reshape(self.panels.shape[0] * PANEL, -1)
        return (rows[: self.d_hidden, : self.d_in].to(torch.int16) - 128).to(torch.int8)

    def with_slack(self, factor: float) -> Sketch:
        """The same sketch with every slack multiplied by ``factor``."""
        certificate = self.certificate.clone()
        certificate[2:5] *= factor
        return dataclasses.replace(self, certificate=certificate)
