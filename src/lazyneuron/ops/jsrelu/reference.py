"""JSReLU's definition in plain torch; every other implementation must match it, bit for bit."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor


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
