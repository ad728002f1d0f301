"""JSReLU's value and gradient by whatever is fastest: the fused native operator where it can run, else plain torch."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lazyneuron.ops.jsrelu.native import available
from lazyneuron.ops.jsrelu.reference import reference, reference_backward


class _Plain(torch.autograd.Function):
    """The reference, keeping its input only."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, mix: float, cap: float) -> Tensor:
        return reference(x, mix, cap)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, float, float], output: Tensor) -> None:
        x, ctx.mix, ctx.cap = inputs
        ctx.save_for_backward(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (x,) = ctx.saved_tensors
        return reference_backward(gradients[0], x, ctx.mix, ctx.cap), None, None


class _Fused(torch.autograd.Function):
    """The native operator with less around it than its registered gradient has: 20 us a call (2026-11, Zen 5)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, mix: float, cap: float) -> Tensor:
        ctx.save_for_backward(x)
        ctx.mix, ctx.cap = mix, cap
        value: Tensor = torch.ops.lazyneuron.jsrelu.default(x, mix, cap)
        return value

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (x,) = ctx.saved_tensors
        return torch.ops.lazyneuron.jsrelu_backward.default(gradients[0], x, ctx.mix, ctx.cap), None, None


def jsrelu(x: Tensor, mix: float, cap: float) -> Tensor:
    """JSReLU by whatever is fastest here; ``mix`` is above 0."""
    # a compiler fuses plain torch with what is around it, and functorch needs what it can take apart
    if torch.compiler.is_compiling() or x.device.type != "cpu" or x.dtype not in available():
        return plain(x, mix, cap)
    if torch._C._are_functorch_transforms_active():
        return plain(x, mix, cap)
    value: Tensor = _Fused.apply(x, mix, cap)  # type: ignore[no-untyped-call]
    return value


def plain(x: Tensor, mix: float, cap: float) -> Tensor:
    """JSReLU in plain torch, on every device and dtype; differentiable any number of times."""
    value: Tensor = _Plain.apply(x, mix, cap)  # type: ignore[no-untyped-call]
    return value
