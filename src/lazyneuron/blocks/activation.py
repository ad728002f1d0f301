"""Activation functions as facts: what they compute, their derivative, and where they are exactly zero."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor

from lazyneuron.blocks.gaussian_top_k import AFTER, gaussian_top_k
from lazyneuron.blocks.interval import INF, NOWHERE, ZeroInterval
from lazyneuron.blocks.thresholded import gelu, gelu_tanh, silu, thresholded, thresholded_zero
from lazyneuron.blocks.top_k import block_top_k, check_count, check_density, statistical_top_k, top_k
from lazyneuron.core.errors import ConfigError


@dataclasses.dataclass(frozen=True)
class Activation:
    """An activation function, known by kind and parameters: element-wise, unless :attr:`elementwise` says no.

    Attributes:
        kind: a key of :data:`KINDS`, or ``"other"`` for a function that we can call but know nothing of.
        parameters: the kind's numbers: shift ``t`` of ``fatrelu``, threshold ``t`` of the thresholded kinds, ``(t, c)``
            of ``offset_gelu``, which is ``gelu(z) - c`` above ``t``, ``(mix, cap)`` of ``jsrelu``, ``(h, dx, dy)`` of
            the shifted kinds, ``k``, ``(k, size)`` and the density of the top-k kinds.
        function: the callable itself, needed only for ``"other"``.
    """

    kind: str
    parameters: tuple[float, ...] = ()
    function: Callable[[Tensor], Tensor] | None = dataclasses.field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        if self.kind == "other":
            if self.function is None:
                raise ConfigError("An activation of kind 'other' needs its function; pass function=...")
            return
        if self.kind not in KINDS:
            raise ConfigError(f"Unknown activation kind {self.kind!r}; known are {', '.join(KINDS)}, and 'other'.")
        wanted = KINDS[self.kind].parameter_names
        if len(self.parameters) != len(wanted):
            raise ConfigError(
                f"Activation {self.kind!r} takes {len(wanted)} parameters {wanted}, got {self.parameters}."
            )
        KINDS[self.kind].check(*self.parameters)

    @property
    def zero(self) -> ZeroInterval:
        """Where the function is exactly zero; :data:`NOWHERE` for smooth and unknown ones."""
        return NOWHERE if self.kind == "other" else KINDS[self.kind].zero(*self.parameters)

    @property
    def flat(self) -> ZeroInterval:
        """Where the derivative is exactly zero; :data:`NOWHERE` for smooth and unknown ones."""
        if self.kind == "other":
            return NOWHERE
        kind = KINDS[self.kind]
        return (kind.flat or kind.zero)(*self.parameters)

    @property
    def elementwise(self) -> bool:
        """Does the value at a neuron depend on its own pre-activation alone? Not so in top-k."""
        return self.kind == "other" or KINDS[self.kind].elementwise

    def __call__(self, z: Tensor) -> Tensor:
        """The function's value at each pre-activation."""
        if self.function is not None:
            return self.function(z)
        return KINDS[self.kind].value(z, *self.parameters)

    def compared(self, dtype: torch.dtype) -> Activation:
        """The function with the numbers that torch takes when the pre-activation is of ``dtype``.

        Raises:
            ConfigError: the threshold is beyond what ``dtype`` holds.
        """
        if self.kind not in ("fatrelu", "offset_gelu") and not self.kind.startswith("thresholded"):
            return self
        # F.threshold compares 16-bit numbers in float32, a comparison operator in their own dtype
        compares = torch.float32 if self.kind == "fatrelu" else dtype
        return Activation(self.kind, tuple(torch.tensor(t).to(compares).item() for t in self.parameters))

    def derivative(self, z: Tensor) -> Tensor:
        """The derivative at each pre-activation, 0 where the function is exactly zero."""
        with torch.enable_grad():
            leaf = z.detach().requires_grad_()
            (slope,) = torch.autograd.grad(self(leaf).sum(), leaf)
        return slope


@runtime_checkable
class DeclaresActivation(Protocol):
    """A module (ours or a third party's) that says which activation function it is."""

    def activation_spec(self) -> Activation:
        """The function as a fact."""
        ...


@dataclasses.dataclass(frozen=True)
class _Kind:
    value: Callable[..., Tensor]
    zero: Callable[..., ZeroInterval]
    parameter_names: tuple[str, ...] = ()
    check: Callable[..., None] = lambda *_: None
    flat: Callable[..., ZeroInterval] | None = None  # None: where it is zero
    elementwise: bool = True


def _relu_family(*_: float) -> ZeroInterval:
    return ZeroInterval(0.0)


def _jsrelu(z: Tensor, mix: float, cap: float) -> Tensor:
    if mix == 0:  # 0 * inf would be NaN
        return F.relu(z)
    r = F.relu(z.float() if z.element_size() == 2 else z)  # rounded once, at the end, as the module's own kernel does
    if math.isinf(cap):
        return (r + mix / 2 * r * r).to(z.dtype)
    inside = torch.clamp(r, max=cap)
    return (r + mix * (inside * inside / 2 + cap * (r - inside))).to(z.dtype)


def _shifted(s: Callable[[Tensor], Tensor]) -> Callable[[Tensor, float, float, float], Tensor]:
    return lambda z, h, dx, dy: s(z - dx - h) - s(-(z - dx) - h) + dy


def _shifted_flat(h: float, dx: float, _: float) -> ZeroInterval:
    return ZeroInterval(-INF, dx - h, dx + h)


def _shifted_zero(h: float, dx: float, dy: float) -> ZeroInterval:
    """Moved inwards by rounding, since the function is evaluated on ``z - dx - h`` in fp32."""
    slack = 1e-6 * (1 + abs(dx) + h)
    low, high = dx - h + slack, dx + h - slack
    return ZeroInterval(-INF, low, high) if dy == 0 and low <= high else NOWHERE


def _fatrelu(z: Tensor, t: float) -> Tensor:
    return F.threshold(z, t, 0.0)


def _offset_gelu(z: Tensor, t: float, c: float) -> Tensor:
    return torch.where(z <= t, torch.zeros_like(z), F.gelu(z) - c)


def _smooth(*_: float) -> ZeroInterval:
    return NOWHERE


def _check_threshold(t: float) -> None:
    if not (math.isfinite(t) and t >= 0):
        raise ConfigError(f"A threshold is a finite number >= 0, got {t}.")


def _check_shift(t: float) -> None:
    if not math.isfinite(t):
        raise ConfigError(f"A shift is a finite number, got {t}.")


def _check_offset(t: float, c: float) -> None:
    if not (math.isfinite(t) and math.isfinite(c)):
        raise ConfigError(f"A threshold and what is subtracted above it are finite numbers, got {t} and {c}.")


def _check_jsrelu(mix: float, cap: float) -> None:
    if not (math.isfinite(mix) and mix >= 0 and cap > 0):
        raise ConfigError(f"JSReLU takes a finite mix >= 0 and a cap > 0, got mix={mix}, cap={cap}.")


def _check_shifted(h: float, dx: float, dy: float) -> None:
    if not (math.isfinite(h) and h > 0 and math.isfinite(dx) and math.isfinite(dy)):
        raise ConfigError(f"A shifted activation takes h > 0 and finite dx and dy, got {h}, {dx} and {dy}.")


def _gelu_tanh_tensor(z: Tensor) -> Tensor:
    return F.gelu(z, approximate="tanh")


KINDS: dict[str, _Kind] = {
    "relu": _Kind(F.relu, _relu_family),
    "squared_relu": _Kind(lambda z: F.relu(z).square(), _relu_family),
    "jsrelu": _Kind(_jsrelu, _relu_family, ("mix", "cap"), _check_jsrelu),
    "fatrelu": _Kind(_fatrelu, ZeroInterval, ("t",), _check_shift),
    "thresholded_silu": _Kind(
        thresholded(F.silu), thresholded_zero(silu, -1.2784645, noise=0.0, quiet=-88.8), ("t",), _check_threshold
    ),
    "thresholded_gelu": _Kind(
        thresholded(F.gelu), thresholded_zero(gelu, -0.7517916, noise=2.0**-20, quiet=-8.0), ("t",), _check_threshold
    ),
    "thresholded_gelu_tanh": _Kind(
        thresholded(_gelu_tanh_tensor),
        thresholded_zero(gelu_tanh, -0.7524614, noise=2.0**-20, quiet=-8.0),
        ("t",),
        _check_threshold,
    ),
    "offset_gelu": _Kind(_offset_gelu, lambda t, c: ZeroInterval(t), ("t", "c"), _check_offset),
    "shifted_squared_relu": _Kind(
        _shifted(lambda z: F.relu(z).square()), _shifted_zero, ("h", "dx", "dy"), _check_shifted, _shifted_flat
    ),
    "shifted_jsrelu": _Kind(
        _shifted(lambda z: _jsrelu(z, 1.0, INF)), _shifted_zero, ("h", "dx", "dy"), _check_shifted, _shifted_flat
    ),
    "top_k": _Kind(top_k, _smooth, ("k",), check_count, elementwise=False),
    "block_top_k": _Kind(block_top_k, _smooth, ("k", "size"), check_count, elementwise=False),
    "statistical_top_k": _Kind(statistical_top_k, _smooth, ("density",), check_density, elementwise=False),
    **{
        f"gaussian_top_k{end}": _Kind(gaussian_top_k(after), _smooth, ("density",), check_density, elementwise=False)
        for end, after in AFTER.items()
    },
    "relu6": _Kind(F.relu6, _relu_family, flat=lambda: ZeroInterval(0.0, 6.0, INF)),
    "hardswish": _Kind(F.hardswish, lambda: ZeroInterval(-3.0)),
    "hardsigmoid": _Kind(F.hardsigmoid, lambda: ZeroInterval(-3.0), flat=lambda: ZeroInterval(-3.0, 3.0, INF)),
    "gelu": _Kind(F.gelu, _smooth),
    "gelu_tanh": _Kind(_gelu_tanh_tensor, _smooth),
    "quick_gelu": _Kind(lambda z: z * torch.sigmoid(1.702 * z), _smooth),
    "silu": _Kind(F.silu, _smooth),
    "mish": _Kind(F.mish, _smooth),
    "leaky_relu": _Kind(F.leaky_relu, _smooth),
    "elu": _Kind(F.elu, _smooth),
    "selu": _Kind(F.selu, _smooth),
    "softplus": _Kind(F.softplus, _smooth),
    "tanh": _Kind(torch.tanh, _smooth),
    "sigmoid": _Kind(torch.sigmoid, _smooth),
    "identity": _Kind(lambda z: z, _smooth),
}
