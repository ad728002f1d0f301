"""JSReLU's value and gradient: the definition in plain torch, and the fused native operator where it can run."""

from __future__ import annotations

import functools
import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lazyneuron.ops.choice import choose
from lazyneuron.ops.native.load import load

_NAME = "lazyneuron::jsrelu"
_DTYPES = (torch.float32, torch.bfloat16)


def reference(x: Tensor, mix: float, cap: float) -> Tensor:
    """The definition: ``r + mix / 2 * r**2`` with ``r = relu(x)``, a line above ``cap``; halves in float32.

    Args:
        x: any shape.
        mix: weight of the square, > 0.
        cap: where the line begins; infinity for nowhere.

    Returns:
        The value, shaped as ``x``.
    """
    wide = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
    r = F.threshold(wide, 0, 0)  # -0.0 becomes 0.0; torch.where takes fifty times as long (2026-11, Zen 5)
    if cap == math.inf:
        return r.mul(0.5 * mix).add_(1).mul_(r).to(x.dtype)
    inside = r.clamp(max=cap)
    return (r + (inside * inside * 0.5 + (r - inside) * cap) * mix).to(x.dtype)


def reference_backward(gradient: Tensor, x: Tensor, mix: float, cap: float) -> Tensor:
    """The gradient in ``x``: 0 at ``x <= 0``, else ``gradient * (1 + mix * min(x, cap))``."""
    half = x.dtype in (torch.float16, torch.bfloat16)
    wide, g = (x.float(), gradient.float()) if half else (x, gradient)
    slope = wide.clamp(0, None if cap == math.inf else cap).mul_(mix).add_(1) * g
    masked: Tensor = torch.ops.aten.threshold_backward(slope, wide, 0)
    return masked.to(x.dtype)


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


def fused(x: Tensor, mix: float, cap: float, *, isa: int = -1) -> Tensor:
    """JSReLU by the native operator: one pass forward, one backward.

    Args:
        x: a float32, bfloat16 or float16 tensor on the CPU.
        mix, cap: as for :func:`reference`.
        isa: kernel level, or -1 for the best that this processor runs.

    Raises:
        ImplUnavailable: the kernels are not built here.
        RuntimeError: another dtype.
    """
    register()
    value: Tensor = torch.ops.lazyneuron.jsrelu(x, mix, cap, isa)
    return value


@functools.cache
def register() -> None:
    """Load the operator and give it its fake implementation and its gradients.

    Raises:
        ImplUnavailable: the kernels are not built here, with the reason.
    """
    load()
    backward = f"{_NAME}_backward"
    torch.library.register_fake(_NAME, lambda x, mix, cap, isa=-1: _contiguous(x))
    torch.library.register_fake(backward, lambda g, x, mix, cap, isa=-1: _contiguous(x))
    torch.library.register_autograd(_NAME, _gradient, setup_context=_keep_input)
    torch.library.register_autograd(backward, _second_gradient, setup_context=_keep_both)


@functools.cache
def available() -> tuple[torch.dtype, ...]:
    """The dtypes that the native operator takes here; none where the kernels are not built."""
    if choose(plain="torch").operators is None:
        return ()
    register()
    converts = int(torch.ops.lazyneuron.best_isa()) > 0  # without F16C plain torch is faster for float16
    return (*_DTYPES, torch.float16) if converts else _DTYPES


def _contiguous(x: Tensor) -> Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)


def _keep_input(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, ctx.mix, ctx.cap, ctx.isa = inputs
    ctx.save_for_backward(x)


def _gradient(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
    (x,) = ctx.saved_tensors
    return torch.ops.lazyneuron.jsrelu_backward(gradient, x, ctx.mix, ctx.cap, ctx.isa), None, None, None


def _keep_both(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    g, x, ctx.mix, ctx.cap, _ = inputs
    ctx.save_for_backward(g, x)


def _second_gradient(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
    g, x = ctx.saved_tensors
    to_x = gradient * g * ctx.mix * ((x > 0) & (x <= ctx.cap))
    return reference_backward(gradient, x, ctx.mix, ctx.cap), to_x, None, None, None
