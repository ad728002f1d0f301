"""Blocks of every shape whose hidden activations can be packed, and what autograd keeps of a forward."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from lazyneuron.induce import JSReLU, Thresholded
from lazyneuron.train import TrainingHooks

WIDTH, HIDDEN = 16, 84  # no multiple of 8


class Gated(nn.Module):
    """``down(s(gate(x)) * up(x))``."""

    def __init__(self, *, rectified: bool = False, merged: bool = False, dropout: float = 0.0) -> None:
        super().__init__()
        self.rectified, self.merged = rectified, merged
        if merged:
            self.gate_up = nn.Linear(WIDTH, 2 * HIDDEN)
        else:
            self.gate, self.up = nn.Linear(WIDTH, HIDDEN), nn.Linear(WIDTH, HIDDEN)
        self.act, self.drop, self.down = nn.ReLU(), nn.Dropout(dropout), nn.Linear(HIDDEN, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        z, u = self.gate_up(x).chunk(2, -1) if self.merged else (self.gate(x), self.up(x))
        return self.down(self.drop(self.act(z) * (F.relu(u) if self.rectified else u)))


class Written(nn.Module):
    """A squared ReLU that stands in the forward."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(WIDTH, HIDDEN), nn.Linear(HIDDEN, WIDTH, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.relu(self.up(x)).square())


class Transposed(nn.Module):
    """As GPT-2 stores it."""

    def __init__(self) -> None:
        super().__init__()
        self.c_fc, self.act, self.c_proj = Conv1D(HIDDEN, WIDTH), nn.ReLU(), Conv1D(WIDTH, HIDDEN)

    def forward(self, x: Tensor) -> Tensor:
        return self.c_proj(self.act(self.c_fc(x)))


def plain(activation: nn.Module, *, dropout: float | None = None) -> nn.Module:
    between = [] if dropout is None else [nn.Dropout(dropout)]
    return nn.Sequential(nn.Linear(WIDTH, HIDDEN), activation, *between, nn.Linear(HIDDEN, WIDTH))


def layer() -> nn.Module:
    return nn.TransformerEncoderLayer(WIDTH, 2, HIDDEN, dropout=0.2, activation=nn.ReLU(), batch_first=True)


BLOCKS: dict[str, Callable[[], nn.Module]] = {
    "relu": lambda: plain(nn.ReLU()),
    "relu with dropout": lambda: plain(nn.ReLU(), dropout=0.3),
    "jsrelu": lambda: plain(JSReLU(mix=0.5, cap=2.0)),
    "thresholded silu": lambda: plain(Thresholded("silu", 0.1)),
    "relu6": lambda: plain(nn.ReLU6()),
    "squared relu": Written,
    "gated": Gated,
    "gated with dropout": lambda: Gated(dropout=0.3),
    "gated, both rectified": lambda: Gated(rectified=True),
    "gated, one layer": lambda: Gated(merged=True),
    "transposed": Transposed,
    "spread over a layer": layer,
}


def made(name: str) -> nn.Module:
    torch.manual_seed(0)
    return BLOCKS[name]().train()


def tokens(*shape: int, seed: int = 3) -> Tensor:
    return torch.randn(*shape, WIDTH, generator=torch.Generator().manual_seed(seed))


def step(model: nn.Module, x: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Output, then the gradients of the input and of every parameter; random numbers are the same each time."""
    x = x.clone().requires_grad_()
    for p in model.parameters():
        p.grad = None
    torch.manual_seed(7)
    y = model(x)
    weights = torch.linspace(-1, 2, y.numel()).reshape(y.shape).to(y.dtype)
    (y * weights).sum().backward()
    return y.detach(), [x.grad, *(p.grad for p in model.parameters())]


@torch.no_grad()
def at_density(up: nn.Linear, x: Tensor, density: float) -> None:
    """Move the biases so that every neuron fires for this share of the tokens."""
    z = up(x).reshape(-1, up.out_features)
    last = round(len(z) * (1 - density))
    up.bias -= (z.kthvalue(last, dim=0).values + z.kthvalue(last + 1, dim=0).values) / 2


def train(model: nn.Module, hooks: TrainingHooks, batches: Iterable[tuple[Tensor, Tensor]]) -> list[float]:
    """The squared error of every step with AdamW and these hooks, which are started."""
    optimizer, losses = torch.optim.AdamW(model.parameters(), 1e-2), []
    hooks.start()
    for number, (x, y) in enumerate(batches, start=1):
        hooks.begin_step(number)
        loss = (model(x) - y).square().mean()
        hooks.check(loss, step=number)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        hooks.end_step(number)
        losses.append(loss.item())
    return losses


class Kept:
    """The memory that autograd keeps within :func:`keeping`, by its address."""

    def __init__(self) -> None:
        self.bytes: dict[int, int] = {}
        self._alive: list[Tensor] = []

    def note(self, t: Tensor) -> Tensor:
        storage = t.untyped_storage()
        self.bytes[storage.data_ptr()] = storage.nbytes()
        self._alive.append(t)  # or another tensor gets its address
        return t

    def total(self, *, without: Iterator[Tensor]) -> int:
        known = {t.untyped_storage().data_ptr() for t in without}
        return sum(n for place, n in self.bytes.items() if place not in known)


def kept_bytes(model: nn.Module, x: Tensor) -> int:
    """Bytes of all that a forward leaves to its backward, except for parameters and the input itself."""
    x, kept = x.clone().requires_grad_(), Kept()
    with torch.autograd.graph.saved_tensors_hooks(kept.note, lambda t: t):
        y = model(x)
    del y
    return kept.total(without=iter([*model.parameters(), x]))
