"""A lower bound on the scales of the norm in front of an MLP block."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lazyneuron.core.arguments import check_choice
from lazyneuron.core.errors import ConfigError
from lazyneuron.core.numbers import real, whole

NormBias = Literal["drop", "freeze", "keep"]


class NormFloor:
    """Keeps ``abs(scale) >= minimum`` in a LayerNorm or RMSNorm, so that the block's input cannot shrink.

    A projector and no module: the norm stays as it is, and :meth:`project_` is called after each optimiser step. With
    the bias dropped, ``||x||**2 >= minimum**2 * d`` for every token, up to the norm's epsilon.

    Args:
        norm: a norm with a scale for each coordinate. One that stores ``scale - 1`` is floored on its true scale.
        minimum: the floor, a number > 0.
        bias: ``"drop"`` sets the norm's bias to 0 and freezes it (from scratch), ``"freeze"`` keeps its values
            (fine-tuning), ``"keep"`` leaves it trainable.
        ramp_steps: steps over which the floor rises from 0 in a line; None demands it at once.

    Raises:
        ConfigError: a number out of range, or a module that is no such norm.

    Source: Peng et al., 2023 (restricted LayerNorm). The true-scale rule is ours.
    """

    def __init__(
        self, norm: nn.Module, minimum: float = 1.0, *, bias: NormBias = "drop", ramp_steps: int | None = None
    ) -> None:
        minimum = real(minimum, "The floor of a norm", above=0)
        check_choice("`bias`", bias, ("drop", "freeze", "keep"))
        ramp_steps = None if ramp_steps is None else whole(ramp_steps, "`ramp_steps`", least=1)
        self.norm, self.minimum, self.bias, self.ramp_steps = norm, minimum, bias, ramp_steps
        self._offset = scale_offset(norm)

    @property
    def scale(self) -> Tensor:
        """What the norm multiplies each coordinate by, of shape (dim,)."""
        return _vector(self.norm) + self._offset

    def new_bias(self) -> nn.Parameter | None:
        """The parameter that the norm is to hold as bias, or None when it stays the one it has."""
        old = self.norm._parameters.get("bias")
        if old is None or self.bias == "keep":
            return None
        value = torch.zeros_like(old) if self.bias == "drop" else old.detach()
        return nn.Parameter(value, requires_grad=False)

    def apply_(self) -> NormFloor:
        """Give the norm its bias and, without a ramp, its floor; for use without a recipe.

        Returns:
            This object.
        """
        bias = self.new_bias()
        if bias is not None:
            self.norm.bias = bias
        if self.ramp_steps is None:
            self.project_()
        return self

    def floor_at(self, step: int | None) -> float:
        """The floor that holds after ``step`` steps.

        Raises:
            ConfigError: there is a ramp and no whole number of steps.
        """
        if self.ramp_steps is None:
            return self.minimum
        if step is None:
            raise ConfigError("A floor with a ramp needs the number of steps made, got step=None.")
        return min(whole(step, "`step`", least=0) / self.ramp_steps, 1.0) * self.minimum

    @torch.no_grad()
    def project_(self, step: int | None = None) -> int:
        """Raise the scales that are too small, keeping their signs (that of 0 is +).

        Args:
            step: optimiser steps made so far; needed with a ramp.

        Returns:
            How many coordinates moved.
        """
        weight, value = _vector(self.norm), self.floored(step)
        moved = int((value != weight).sum())
        if moved:
            weight.copy_(value)
        return moved

    @torch.no_grad()
    def floored(self, step: int | None = None) -> Tensor:
        """The norm's ``weight`` as :meth:`project_` would make it."""
        weight, floor = _vector(self.norm), self.floor_at(step)
        sign = torch.where(self.scale < 0, -1.0, 1.0).to(weight)
        return torch.where(self.scale.abs() < floor, sign * floor - self._offset, weight)


def scale_offset(norm: nn.Module) -> float:
    """0 for a norm that multiplies by its ``weight``, 1 for one that multiplies by ``1 + weight``.

    Raises:
        ConfigError: the module is neither a LayerNorm nor an RMSNorm with a scale for each coordinate.
    """
    weight = norm._parameters.get("weight")
    if weight is not None and weight.ndim == 1 and weight.is_floating_point():
        x = torch.linspace(-1, 2, 3 * len(weight), dtype=weight.dtype).cos().mul(3).reshape(3, -1).to(weight.device)
        try:
            with torch.no_grad():
                y = norm(x)
            y = y if norm._parameters.get("bias") is None else y - norm._parameters["bias"]
        except (RuntimeError, TypeError, ValueError):
            y = torch.empty(0)
        bases = (F.layer_norm(x, x.shape[1:]), F.rms_norm(x, x.shape[1:], eps=1e-6))
        limit = 1e-3 if weight.dtype in (torch.float32, torch.float64) else 3e-2
        for offset in (0.0, 1.0):
            if any(y.shape == b.shape and torch.allclose(y, b * (weight + offset), limit, limit) for b in bases):
                return offset
    raise ConfigError(
        f"{type(norm).__name__} is no LayerNorm or RMSNorm with a scale for each coordinate; "
        "switch the floor off for it."
    )


def _vector(norm: nn.Module) -> Tensor:
    weight = norm._parameters["weight"]
    assert weight is not None
    return weight
