"""Small models to train."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

WIDTH, HIDDEN, TOKENS = 8, 32, 6


class Layer(nn.Module):
    """A pre-norm residual MLP layer."""

    def __init__(self, *, dropout: float = 0.0, saving: bool = False) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(WIDTH)
        self.mlp = nn.Sequential(nn.Linear(WIDTH, HIDDEN), nn.ReLU(), nn.Dropout(dropout), nn.Linear(HIDDEN, WIDTH))
        self.saving = saving

    def part(self, x: Tensor) -> Tensor:
        return self.mlp(self.norm(x))

    def forward(self, x: Tensor) -> Tensor:
        return x + (checkpoint(self.part, x, use_reentrant=False) if self.saving else self.part(x))


class Net(nn.Module):
    """Layers and a head; the loss is a regression on the batch."""

    def __init__(self, *, layers: int = 2, dropout: float = 0.0, saving: bool = False) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Layer(dropout=dropout, saving=saving) for _ in range(layers))
        self.head = nn.Linear(WIDTH, 3)

    def forward(self, x: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return self.head(x).mean(1)


def net(*, seed: int = 0, layers: int = 2, dropout: float = 0.0, saving: bool = False) -> Net:
    torch.manual_seed(seed)
    return Net(layers=layers, dropout=dropout, saving=saving)


def data(*, samples: int = 48, seed: int = 1) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(samples, TOKENS, WIDTH, generator=generator)
    return x, x.mean(1)[:, :3].tanh()
