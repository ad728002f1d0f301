"""The fused native operator (csrc/), with its fake implementation and its gradients of both orders."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor

from lazyneuron.ops.choice import choose, with_fakes
from lazyneuron.ops.jsrelu.reference import reference_backward

_DTYPES = (torch.float32, torch.bfloat16)


def fused(x: Tensor, mix: float, cap: float, *, isa: int = -1) -> Tensor:
    """JSReLU by the native operator: one pass forward, one backward.

    Args:
        x: a float32, bfloat16 or float16 tensor on the CPU.
        mix, cap: as for :func:`lazyneuron.ops.jsrelu.reference.reference`.
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
    with_fakes({"jsrelu": _fake, "jsrelu_backward": _fake_backward})
    torch.library.register_autograd("lazyneuron::jsrelu", _gradient, setup_context=_keep_input)
    torch.library.register_autograd("lazyneuron::jsrelu_backward", _second_gradient, setup_context=_keep_both)


@functools.cache
def available() -> tuple[torch.dtype, ...]:
    """The dtypes that the native operator takes here; none where the kernels are not built."""
    if choose(plain="torch").operators is None:
        return ()
    register()
    converts = int(torch.ops.lazyneuron.best_isa()) > 0  # without F16C plain torch is faster for float16
    return (*_DTYPES, torch.float16) if converts else _DTYPES


def _fake(x: Tensor, mix: float, cap: float, isa: int = -1) -> Tensor:
    return _contiguous(x)


def _fake_backward(gradient: Tensor, x: Tensor, mix: float, cap: float, isa: int = -1) -> Tensor:
    return _contiguous(x)


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
