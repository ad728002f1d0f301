"""Small models with MLP blocks that are known by construction, and brute-force counts over their activations."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn

from lazyneuron.blocks.activation import Activation
from lazyneuron.blocks.block import LinearSite, MLPBlock


class Plain(nn.Module):
    def __init__(
        self, d: int = 6, hidden: int = 11, kind: str = "relu", parameters: tuple[float, ...] = (), p: float = 0.0
    ):
        super().__init__()
        self.up, self.down = nn.Linear(d, hidden), nn.Linear(hidden, d)
        self.drop = nn.Dropout(p)
        self.activation = Activation(kind, parameters)

    def forward(self, x: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        return self.down(self.drop(self.activation(self.up(x))))


class Gated(nn.Module):
    def __init__(self, d: int = 6, hidden: int = 16, kind: str = "relu", parameters: tuple[float, ...] = ()):
        super().__init__()
        self.gate, self.up, self.down = nn.Linear(d, hidden), nn.Linear(d, hidden), nn.Linear(hidden, d)
        self.activation = Activation(kind, parameters)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(self.activation(self.gate(x)) * self.up(x))


def block_of(module: nn.Module, name: str = "") -> MLPBlock:
    def site(attribute: str) -> LinearSite:
        return LinearSite(name=f"{name}.{attribute}".lstrip("."), module=getattr(module, attribute))

    return MLPBlock(
        name=name,
        up=site("up"),
        down=site("down"),
        gate=site("gate") if hasattr(module, "gate") else None,
        activation=module.activation,
        dropouts=(f"{name}.drop".lstrip("."),) if hasattr(module, "drop") else (),
    )


def brute_unions(fired: list[list[bool]], size: int) -> list[float]:
    """Union density of each complete window over the tokens of ``fired``, one neuron at a time."""
    shares = []
    for start in range(0, len(fired) - size + 1, size):
        window = fired[start : start + size]
        shares.append(sum(any(row[i] for row in window) for i in range(len(window[0]))) / len(window[0]))
    return shares


def brute_overlaps(sequences: list[list[list[bool]]]) -> list[float]:
    """Jaccard overlap of every two neighbouring tokens of each sequence."""
    overlaps = []
    for rows in sequences:
        for a, b in itertools.pairwise(rows):
            one, other = {i for i, x in enumerate(a) if x}, {i for i, x in enumerate(b) if x}
            overlaps.append(len(one & other) / len(one | other) if one | other else 1.0)
    return overlaps


def set_linear(layer: nn.Linear, weight: list[list[float]], bias: list[float]) -> None:
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(weight))
        layer.bias.copy_(torch.tensor(bias))
