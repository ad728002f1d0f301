"""What an input and its surroundings make an accelerated block leave to the model's own code, on every device."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.autograd import forward_ad

from lazyneuron.blocks.block import LinearSite

# bound once: each look at torch's submodules takes as long as the call
_functorch_level = torch._C._functorch.peek_interpreter_stack
_tracing_state, _dispatch_modes = torch._C._get_tracing_state, torch._C._len_torch_dispatch_stack


def why_foreign(x: object) -> str | None:
    """Why this is no tensor that kernels can read, or None."""
    if type(x) is not Tensor:
        return f"an input of type {type(x).__name__}"
    return "an input of another layout" if x.is_nested or x.layout is not torch.strided else None


def why_transformed() -> str | None:
    """Why what runs now is looked at by others than its caller, or None."""
    if (
        _functorch_level() is not None
        or _tracing_state() is not None
        or forward_ad._current_level >= 0
        or _dispatch_modes() > 0
    ):
        return "a function transform or a trace"
    return None


def why_misshapen(x: Tensor, width: int) -> str | None:
    """Why there are no tokens of this width, or None."""
    shape = x.shape
    return "an input that is empty or of another width" if not shape or shape[-1] != width or 0 in shape else None


def why_moved(linears: Iterable[LinearSite], device: torch.device) -> str | None:
    """Whether weights are elsewhere than they were when they were accelerated, as a sentence, or None."""
    for site in linears:
        weight = site.module._parameters.get("weight")
        if weight is not None and weight.device != device:
            where = f"from {device} to {weight.device}"
            return f"The weights moved {where} after the acceleration; restore_ and accelerate_ again there."
    return None


def wants_gradient(linears: Iterable[LinearSite]) -> bool:
    """Does a parameter of these layers want one?"""
    held = (p for site in linears for p in site.module._parameters.values())
    return any(p is not None and p.requires_grad for p in held)


def can_be_compiled(x: Tensor, linears: Iterable[LinearSite], *, width: int, gradient: bool) -> bool:
    """May a compiled graph hold a block as one operator, as far as its input goes?

    Args:
        x: tokens, or what stands for them while the graph is made; on the block's device.
        linears: the block's layers.
        width: of the tokens.
        gradient: whether a parameter wants one.
    """
    return not (
        (torch.is_grad_enabled() and (x.requires_grad or gradient))
        or any(x.dtype != site.weight.dtype for site in linears)
        or x.ndim == 0
        or x.shape[-1] != width
        or torch.is_autocast_enabled(x.device.type)
    )
