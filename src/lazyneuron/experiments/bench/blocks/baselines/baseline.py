"""What every baseline is: a name, and a function that makes a callable from a block or says why it cannot."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import torch.nn.functional as F
from torch import Tensor

from lazyneuron.blocks import MLPBlock


@dataclasses.dataclass(frozen=True, kw_only=True)
class Problem:
    """What a baseline is built from.

    Attributes:
        block: the dense block.
        calibration: (tokens, d_in) inputs to fit or to set thresholds on; none of them is measured on.
        inputs: the inputs that will be measured on; only the oracle looks at them.
        byte_share: share of the block's weight bytes that a certified step reads at one token.
    """

    block: MLPBlock
    calibration: Tensor
    inputs: Sequence[Tensor]
    byte_share: float = 1.0

    @property
    def sample(self) -> Tensor:
        """So many of the calibration tokens as a threshold or a count needs."""
        return self.calibration[:1024]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Built:
    """A baseline ready to run.

    Attributes:
        run: (tokens, d_in) -> (tokens, d_out).
        added_bytes: weights held beside the model's own; negative when less is held in their place.
        used: which (token, neuron) pairs contribute to the output, boolean (tokens, d_hidden); None when all do that
            fire.
        note: the settings that were chosen.
    """

    run: Callable[[Tensor], Tensor]
    added_bytes: int = 0
    used: Callable[[Tensor], Tensor] | None = None
    note: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Baseline:
    """An alternative.

    Attributes:
        name: in records and on the command line.
        about: one line for tables.
        exact: whether its output must equal the dense block's up to rounding.
        build: makes it; raises :class:`lazyneuron.core.errors.ImplUnavailable` with the reason when it cannot run here.
    """

    name: str
    about: str
    exact: bool
    build: Callable[[Problem], Built]


def hidden(block: MLPBlock, x: Tensor) -> Tensor:
    """The hidden activation (tokens, d_hidden) in the block's dtype."""
    h = block.activation(F.linear(x, block.first.weight, block.first.bias))
    return h if block.gate is None else h * F.linear(x, block.up.weight, block.up.bias)


def dense_output(block: MLPBlock, h: Tensor) -> Tensor:
    """``down`` of a hidden activation."""
    return F.linear(h, block.down.weight, block.down.bias)


def size_bytes(*tensors: Tensor | None) -> int:
    """Memory of some tensors."""
    return sum(t.numel() * t.element_size() for t in tensors if t is not None)
