"""What fires of a hidden activation, as bits and values, and all that a backward pass makes of it."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd import forward_ad

from lazyneuron.blocks.activation import Activation
from lazyneuron.blocks.interval import ZeroInterval
from lazyneuron.ops.packing.operators import gather_fired, mark_fired, scatter_fired

_AS_IS = ("relu", "fatrelu", "identity")  # where these are not zero, their slope is one
NOT_ZERO = ZeroInterval(low=0.0, high=0.0)
_ATTRIBUTE = "_lazyneuron_packed"


@dataclasses.dataclass(frozen=True)
class Rule:
    """How a hidden activation follows from what was kept.

    Attributes:
        activation: the function.
        rectifies_up: whether a gated block's ``up`` is rectified.
    """

    activation: Activation
    rectifies_up: bool = False

    @functools.cached_property
    def zero(self) -> ZeroInterval:
        """Where a pre-activation is not kept."""
        return NOT_ZERO if self.activation.kind == "identity" else self.activation.zero

    def value(self, values: Tensor) -> Tensor:
        """The activation at kept pre-activations."""
        return values if self.activation.kind in _AS_IS else self.activation(values)

    def times_slope(self, gradient: Tensor, values: Tensor) -> Tensor:
        """A gradient in the activation's values as one in the pre-activations."""
        return gradient if self.activation.kind in _AS_IS else gradient * self.activation.derivative(values)


ITSELF = Rule(Activation("identity"))  # of what is kept as it stands


class Kept(NamedTuple):  # as all below: dataclasses take tens of microseconds when they are made between products
    """Which of the hidden activations a dropout kept, how many, and what it multiplied them by."""

    bits: Tensor
    number: int
    scale: float

    def noise(self, like: Tensor, shape: tuple[int, ...]) -> Tensor:
        """What the dropout multiplied by."""
        return scatter_fired(self.bits, like.new_full((self.number,), self.scale), shape)


class Form(NamedTuple):
    """What of a packed activation is no tensor; autograd alone holds the tensors.

    Attributes:
        rule, shape: as of :class:`Packed`.
        dropout: number and scale of what a dropout left, or None.
    """

    rule: Rule
    shape: tuple[int, ...]
    dropout: tuple[int, float] | None

    def having(self, tensors: Sequence[Tensor | None]) -> Packed:
        """The packed activation with these as its :attr:`Packed.tensors`."""
        bits, values, factors, kept = tensors
        assert bits is not None and values is not None
        left = None if self.dropout is None or kept is None else Kept(kept, *self.dropout)
        return Packed(self.rule, self.shape, bits, values, factors, left)


class Packed(NamedTuple):
    """A hidden activation (..., neurons) as what its backward needs.

    Attributes:
        rule: how it follows from the rest.
        shape: of the activation.
        bits: uint8 (tokens, ceil(neurons / 8)), which pre-activations are kept.
        values: these, (kept,).
        factors: the values of a gated block's ``up`` at the same places, else None.
        kept: what a dropout behind the activation left, or None.
        watched: whether hooks see the activation, whose gradient has to be whole then.
    """

    rule: Rule
    shape: tuple[int, ...]
    bits: Tensor
    values: Tensor
    factors: Tensor | None = None
    kept: Kept | None = None
    watched: bool = False

    @property
    def tensors(self) -> tuple[Tensor | None, ...]:
        """All that is kept, for autograd."""
        return self.bits, self.values, self.factors, None if self.kept is None else self.kept.bits

    @property
    def form(self) -> Form:
        """The rest."""
        return Form(self.rule, self.shape, None if self.kept is None else (self.kept.number, self.kept.scale))

    @property
    def nbytes(self) -> int:
        """Bytes of what is kept."""
        return sum(t.numel() * t.element_size() for t in self.tensors if t is not None)

    def hidden_values(self) -> Tensor:
        """The activation where it was kept, before dropout."""
        h = self.rule.value(self.values)
        return h if self.factors is None else h * self.factors

    def hidden(self) -> Tensor:
        """The activation, dense."""
        dense = scatter_fired(self.bits, self.hidden_values(), self.shape)
        return dense if self.kept is None else dense.mul_(self.kept.noise(dense, self.shape))


def pack(rule: Rule, z: Tensor, u: Tensor | None = None) -> Packed:
    """Keep what fires of pre-activations (..., neurons), and of a gated block's ``up``."""
    bits = mark_fired(z, rule.zero, factor=u if rule.rectifies_up else None)
    factors = None if u is None else gather_fired(u, bits)
    return Packed(rule, tuple(z.shape), bits, gather_fired(z, bits), factors)


def attach(h: Tensor, packed: Packed) -> Tensor:
    """Let a hidden activation carry its packed form on."""
    setattr(h, _ATTRIBUTE, (packed, h._version))
    return h


def attached(h: Tensor) -> Packed | None:
    """What :func:`attach` gave to this tensor, unless it was written since."""
    packed, version = getattr(h, _ATTRIBUTE, (None, 0))
    return packed if version == h._version and isinstance(packed, Packed) else None


class FiredGradient(NamedTuple):
    """A gradient (..., neurons) that matters only where a neuron fires, as the values there."""

    bits: Tensor
    values: Tensor


def attach_gradient(gradient: Tensor, bits: Tensor, values: Tensor) -> Tensor:
    """Let a dense gradient carry its values where neurons fire."""
    setattr(gradient, _ATTRIBUTE, (FiredGradient(bits=bits, values=values), gradient._version))
    return gradient


def attached_gradient(gradient: Tensor) -> FiredGradient | None:
    """What :func:`attach_gradient` gave to this tensor, unless it was written since, or others were added to it."""
    fired, version = getattr(gradient, _ATTRIBUTE, (None, 0))
    return fired if version == gradient._version and isinstance(fired, FiredGradient) else None


def is_packable(x: object) -> bool:
    """Is this a tensor that autograd would keep, of a kind whose numbers can be moved?"""
    return (
        type(x) is Tensor
        and torch.is_grad_enabled()
        and x.layout is torch.strided
        and x.is_floating_point()
        and x.dim() > 0
        and not x.is_nested
        and not torch._C._are_functorch_transforms_active()
        and torch._C._get_tracing_state() is None
        and forward_ad._current_level < 0
        and not torch.compiler.is_exporting()
    )
