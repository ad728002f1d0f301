"""Tell which activation function a callable is, or which one turned these values into those."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from lazyneuron.blocks.activation import KINDS, Activation, DeclaresActivation

_PROBE = torch.cat(
    [torch.linspace(-8, 8, 257, device="cpu"), torch.tensor([0.0, -30.0, 30.0, 0.01, -0.01], device="cpu")]
)
# relative and absolute error within which values count as those of a function evaluated in this dtype
_TOLERANCE = {torch.float64: (1e-5, 4e-6), torch.float32: (1e-5, 4e-6), torch.float16: (4e-3, 1e-3)}
_COARSE = (3e-2, 4e-3)


def identify(function: Callable[..., Any]) -> Activation:
    """The activation that a callable computes.

    Returns:
        What it declares, a known kind, or ``"other"`` with the function.
    """
    if isinstance(function, Activation):
        return function
    if isinstance(function, DeclaresActivation):
        return function.activation_spec()
    try:
        with torch.no_grad():
            value = function(_PROBE.clone())
    except Exception:
        value = None
    known = known_kind(_PROBE, value) if isinstance(value, Tensor) else None
    return Activation("other", function=function) if known is None else known


def known_kind(z: Tensor, value: Tensor) -> Activation | None:
    """The known function whose values at ``z`` come nearest to these, if they agree up to rounding."""
    if value.shape != z.shape:
        return None
    errors = {name: _error(kind.value(z), value) for name, kind in KINDS.items() if not kind.parameter_names}
    best = min(errors, key=lambda name: errors[name])
    return Activation(best) if errors[best] <= 1 else None


def agrees(value: Tensor, wanted: Tensor) -> bool:
    """Are these the same values of an activation, up to rounding?"""
    return value.shape == wanted.shape and _error(value, wanted) <= 1


def is_affine(function: Callable[[Tensor], Tensor], z: Tensor) -> bool:
    """Is the function a line at every neuron, as no activation is?"""
    rest = function(torch.zeros_like(z))
    slope = function(z.clone()) - rest
    return all(_error(function(z * scale) - rest, slope * scale) <= 1 for scale in (2.0, -1.0))


def is_elementwise(function: Callable[[Tensor], Tensor], z: Tensor) -> bool:
    """Does every output depend on its own input only? Asked by changing half of the neurons and one token."""
    changed = torch.zeros_like(z, dtype=torch.bool)
    changed[:, ::2] = True
    changed[:1] = True
    before, after = function(z.clone()), function(torch.where(changed, z + 1, z))
    return before.shape == z.shape and torch.equal(before[~changed], after[~changed])


def _error(value: Tensor, wanted: Tensor) -> float:
    """Largest difference, in units of what the dtype's rounding allows; infinite where either is not finite."""
    relative, absolute = _TOLERANCE.get(wanted.dtype, _COARSE)
    a, b = value.double(), wanted.double()
    worst = ((a - b).abs() / (absolute + relative * b.abs())).amax() if a.numel() else a.new_zeros(())
    return float(worst) if bool(torch.isfinite(worst)) else float("inf")
