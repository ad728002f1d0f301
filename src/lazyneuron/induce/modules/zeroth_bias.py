"""A bias of its own for every token position, around an MLP block."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lazyneuron.blocks.block import LinearSite
from lazyneuron.core.arguments import check_choice, check_switch
from lazyneuron.core.errors import ShapeError
from lazyneuron.core.numbers import real, whole

Position = Literal["input", "output"]


class ZerothBias(nn.Module):
    """``y_t = x_t + D_t``: a learnt vector ``D_t`` for each position ``t``, kept small against the norm's scale.

    On the input side of a block the gradient of ``D_t`` is that of ``x_t``, so that flatness in ``D`` is robustness in
    the hidden features. It holds no reference to the norm; call :meth:`clip_` after each optimiser step.

    Args:
        max_len: number of positions.
        dim: width of the tokens.
        bound: ``D`` stays within ``bound * abs(scale)`` of 0, coordinate by coordinate; None lets it go free.
        position: ``"input"`` (between norm and ``up``) or ``"output"`` (after ``down``). The module computes the same;
            what it is added to, and how :meth:`fold` works, differ.
        per_position: False has one row for all tokens, of any number: a clipped bias of the norm. The gradient of that
            row is a sum over tokens, so it says nothing about robustness token by token.

    Raises:
        ConfigError: an argument out of range.

    Example:
        >>> ZerothBias(4, 2)(torch.ones(1, 3, 2)).shape
        torch.Size([1, 3, 2])

    Source: Peng et al., 2023 (zeroth bias); their published code adds it on the output side, their text on the input
        side. The position-free variant is ours.
    """

    def __init__(
        self,
        max_len: int,
        dim: int,
        bound: float | None = 0.1,
        position: Position = "input",
        per_position: bool = True,
    ) -> None:
        super().__init__()
        max_len, dim = whole(max_len, "`max_len`", least=1), whole(dim, "`dim`", least=1)
        bound = None if bound is None else real(bound, "`bound`", least=0)
        check_choice("`position`", position, ("input", "output"))
        check_switch("`per_position`", per_position)
        self.bound = bound
        self.position: Position = position
        self.per_position = per_position
        self.bias = nn.Parameter(torch.zeros(max_len if per_position else 1, dim))

    def forward(self, x: Tensor, positions: Tensor | None = None) -> Tensor:
        """Add the bias.

        Args:
            x: (..., tokens, dim).
            positions: whole numbers that broadcast to (..., tokens), for cached decoding, left padding and packed
                sequences; None counts the tokens of this call from 0.

        Returns:
            A tensor shaped as ``x``.

        Raises:
            ShapeError: a token has no position, a position is beyond the table, or the width differs.
        """
        if x.shape[-1] != self.bias.shape[1]:
            raise ShapeError(f"This zeroth bias has width {self.bias.shape[1]}, got tokens of width {x.shape[-1]}.")
        if not self.per_position:
            return x + self.bias[0]
        if positions is not None:
            return x + self.bias[positions]
        if x.ndim < 2:
            raise ShapeError("A single token has no position to count; pass `positions`.")
        if x.shape[-2] > len(self.bias):
            raise ShapeError(
                f"This zeroth bias knows {len(self.bias)} positions, got {x.shape[-2]} tokens; make it with a larger "
                "max_len, or pass shorter sequences."
            )
        return x + self.bias[: x.shape[-2]]

    @torch.no_grad()
    def clip_(self, scale: Tensor | None = None) -> int:
        """Bring the bias within its bound.

        Args:
            scale: the scale of the block's norm, of shape (dim,); None stands for 1.

        Returns:
            How many coordinates moved.
        """
        if self.bound is None:
            return 0
        limit = self.bound * (torch.ones_like(self.bias[0]) if scale is None else scale.detach().abs().to(self.bias))
        moved = int((self.bias.abs() > limit).sum())
        self.bias.copy_(self.bias.clamp(-limit, limit))
        return moved

    def fold(self, linear: nn.Module | LinearSite) -> Tensor:
        """The bias that ``linear`` would need at each position to do without this module.

        Args:
            linear: ``up`` (or ``gate``) for the input side, ``down`` for the output side.

        Returns:
            (positions, out): ``b + K D_t``, or ``c + D_t`` on the output side.

        Cost: ``out / dim`` times the memory of ``D`` on the input side.
        """
        site = linear if isinstance(linear, LinearSite) else LinearSite(name="linear", module=linear)
        if self.position == "input":
            return F.linear(self.bias, site.effective_weight, site.bias)
        return self.bias if site.bias is None else self.bias + site.bias

    def extra_repr(self) -> str:
        """Shape and settings."""
        return f"{tuple(self.bias.shape)}, bound={self.bound}, position={self.position!r}"
