"""What is learned: the next byte of a text, and two functions on a subspace of many more dimensions."""

from __future__ import annotations

import abc
import functools
import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lazyneuron.experiments.reproduce.baykal.transformer import Layer, Reader, library_text, windows
from lazyneuron.route import GridFunction, random_grid_function, random_hypercube_function

WIDTH, LENGTH = 64, 64  # of what a block reads; positions of a text
_BATCH, _TESTS = 512, 8192  # tokens
Pair = tuple[Tensor, Tensor]


class Task(abc.ABC):
    """A problem whose model spends most of its parameters in MLP blocks of width :data:`WIDTH`.

    Attributes:
        measured: what the loss is.
        offset: of the hyperplanes that route: 0 for normed inputs.
    """

    measured: str
    offset: float

    @abc.abstractmethod
    def new_model(self, hidden: int) -> nn.Module:
        """A model with random weights from torch's random state, with so many neurons a block."""

    @abc.abstractmethod
    def batch(self, step: int, *, seed: int) -> Pair:
        """Inputs and targets of 512 tokens, which no other step sees."""

    @property
    @abc.abstractmethod
    def held_out(self) -> Pair:
        """8192 tokens that no step sees."""

    @abc.abstractmethod
    def loss(self, model: nn.Module, pair: Pair) -> Tensor:
        """What is trained on and reported, as a scalar."""

    @abc.abstractmethod
    def blocks(self, model: nn.Module) -> list[nn.Module]:
        """The modules that compute the MLP blocks."""

    @abc.abstractmethod
    def block_inputs(self, model: nn.Module) -> list[Tensor]:
        """What each of them is given for the held-out tokens: (tokens, WIDTH)."""


def _generator(step: int, seed: int) -> torch.Generator:
    return torch.Generator().manual_seed((seed + 1) * 1_000_003 + step)


class NextByte(Task):
    """The next byte of Python's standard library."""

    measured, offset = "bits a byte, held out", 0.0

    def __init__(self, size: int) -> None:
        text = library_text(size)
        cut = len(text) * 9 // 10
        self._train, self._rest = text[:cut], text[cut:]

    def new_model(self, hidden: int) -> nn.Module:
        """Two layers."""
        return Reader(width=WIDTH, hidden=hidden, length=LENGTH)

    def batch(self, step: int, *, seed: int) -> Pair:
        """Windows at random places."""
        rows = windows(self._train, _BATCH // LENGTH, _generator(step, seed), length=LENGTH)
        return rows[:, :-1], rows[:, 1:]

    @functools.cached_property
    def held_out(self) -> Pair:
        """Windows of the last tenth of the text."""
        rows = windows(self._rest, _TESTS // LENGTH, torch.Generator().manual_seed(99), length=LENGTH)
        return rows[:, :-1], rows[:, 1:]

    def loss(self, model: nn.Module, pair: Pair) -> Tensor:
        """Cross-entropy in bits."""
        return F.cross_entropy(model(pair[0]).flatten(0, 1), pair[1].flatten()) / math.log(2)

    def blocks(self, model: nn.Module) -> list[nn.Module]:
        """One a layer."""
        assert isinstance(model, Reader)
        return [layer.mlp for layer in model.layers]  # type: ignore[misc]

    def block_inputs(self, model: nn.Module) -> list[Tensor]:
        """Normed, after attention."""
        assert isinstance(model, Reader)
        x, found = model.embed(self.held_out[0]) + model.place[:LENGTH], []
        for layer in model.layers:
            assert isinstance(layer, Layer)
            after = layer.attend(x)
            found.append(layer.second(after).flatten(0, 1))
            x = after + layer.mlp(layer.second(after))
        return found


class Regressor(nn.Module):
    """One MLP block and a linear head."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(WIDTH, hidden), nn.ReLU(), nn.Linear(hidden, WIDTH))
        self.head = nn.Linear(WIDTH, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(rows, WIDTH) to (rows,)."""
        out: Tensor = self.head(self.mlp(x))[:, 0]
        return out


class Regression(Task):
    """A function of ``dimension`` coordinates that are uniform on [-1, 1], seen through a basis in WIDTH dimensions.

    The basis' rows are orthogonal and as long as makes the mean square of an input's entry 1.
    """

    measured, offset = "mean squared error over the variance, held out", 1.0

    def __init__(self, target: Callable[[Tensor], Tensor], dimension: int) -> None:
        g = torch.Generator().manual_seed(12)
        basis = torch.linalg.qr(torch.randn(WIDTH, dimension, generator=g))[0].t()
        self._target, self._basis = target, basis * math.sqrt(3 * WIDTH / dimension)
        self._variance = float(self._draw(1 << 16, torch.Generator().manual_seed(13))[1].var())

    def _draw(self, rows: int, generator: torch.Generator) -> Pair:
        u = 2 * torch.rand(rows, len(self._basis), generator=generator) - 1
        return u @ self._basis, self._target(u)

    def new_model(self, hidden: int) -> nn.Module:
        """One block and a head."""
        return Regressor(hidden)

    def batch(self, step: int, *, seed: int) -> Pair:
        """New rows in every step."""
        return self._draw(_BATCH, _generator(step, seed))

    @functools.cached_property
    def held_out(self) -> Pair:
        """Rows of a seed of their own."""
        return self._draw(_TESTS, torch.Generator().manual_seed(99))

    def loss(self, model: nn.Module, pair: Pair) -> Tensor:
        """1 is the best constant."""
        loss: Tensor = (model(pair[0]) - pair[1]).square().mean() / self._variance
        return loss

    def blocks(self, model: nn.Module) -> list[nn.Module]:
        """The one block."""
        assert isinstance(model, Regressor)
        return [model.mlp]

    def block_inputs(self, model: nn.Module) -> list[Tensor]:
        """The inputs themselves."""
        return [self.held_out[0]]


@functools.lru_cache(maxsize=4)
def task_of(name: str) -> Task:
    """A task by name: ``"language"``, ``"hypercube"`` or ``"lipschitz"``."""
    if name == "language":
        return NextByte(4_000_000)
    if name == "hypercube":
        return Regression(random_hypercube_function(10, seed=0), 10)
    grid: GridFunction = random_grid_function(3, cells=6, seed=0)
    return Regression(grid, 3)
