"""Small models with MLP blocks, and batches for them."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn


def gelu_mlp(*, d: int = 6, hidden: int = 24, seed: int = 0) -> nn.Module:
    """Two GELU blocks in a row, biases random."""
    torch.manual_seed(seed)
    layers = [
        nn.Sequential(nn.Linear(d, hidden), nn.GELU(), nn.Linear(hidden, d)),
        nn.LayerNorm(d),
        nn.Sequential(nn.Linear(d, hidden), nn.GELU(), nn.Linear(hidden, d)),
    ]
    return nn.Sequential(*layers).eval()


def inputs(*, rows: int = 256, d: int = 6, seed: int = 1) -> Tensor:
    return torch.randn(rows, d, generator=torch.Generator().manual_seed(seed))


def twin(model: nn.Module) -> nn.Module:
    return copy.deepcopy(model)


class Masked(nn.Module):
    """One block under a model that takes a mask and returns a mapping, as transformers do."""

    def __init__(self, *, d: int = 4, hidden: int = 10) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.mlp = nn.Sequential(nn.Linear(d, hidden), nn.ReLU(), nn.Linear(hidden, d))

    def forward(self, x: Tensor, attention_mask: Tensor | None = None) -> tuple[Tensor]:
        return (self.mlp(x),)
