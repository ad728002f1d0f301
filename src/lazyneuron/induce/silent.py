"""Which neurons can be proved silent for every input, from the norm in front of their block."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lazyneuron.blocks.block import MLPBlock

_ROUNDING = 1e-4  # relative, of a norm evaluated in fp32 or in 16 bits with fp32 sums; far above what it errs


def proved_silent(block: MLPBlock, norm: nn.Module) -> Tensor | None:
    """Neurons whose pre-activation cannot leave the zero interval, whatever comes into the norm.

    A norm divides by (at least) the root mean square, so what it returns before scale ``w`` and shift ``c`` has length
    at most ``sqrt(d)``; LayerNorm's sums to zero, moreover. Hence ``k . x + b <= sqrt(d) |P(k w)| + k . c + b``, where
    ``P`` takes away the mean for LayerNorm and is the identity for RMSNorm.

    Args:
        block: its activation is zero on ``(-inf, left]``.
        norm: the module whose output is the block's input.

    Returns:
        Boolean (d_hidden,), or None when the norm is neither of the two or the activation has no such interval.

    Source: ours; Cauchy-Schwarz.
    """
    left = block.activation.zero.left
    form = _form(norm, block.d_in)
    if form is None or left == -math.inf:
        return None
    centred, offset = form
    weight = norm._parameters["weight"]
    assert weight is not None
    rows = block.first.effective_weight.detach().double()
    scaled = rows * (weight.detach().double() + offset)
    if centred:
        scaled = scaled - scaled.mean(1, keepdim=True)
    shift = norm._parameters.get("bias")
    middle = torch.zeros(len(rows), dtype=torch.float64) if shift is None else rows @ shift.detach().double()
    bias = block.first.bias
    if bias is not None:
        middle = middle + bias.detach().double()
    reach = math.sqrt(block.d_in) * scaled.norm(dim=1)
    size = reach + rows.abs().sum(1) * (0.0 if shift is None else float(shift.detach().abs().max())) + middle.abs()
    silent: Tensor = middle + reach + _ROUNDING * size <= left
    return silent


@torch.no_grad()
def _form(norm: nn.Module, width: int) -> tuple[bool, float] | None:
    """Whether the norm takes the mean away and by how much its scale is offset; None when it is no norm that we know.

    The formulas are tried on inputs of several sizes and means.
    """
    weight = norm._parameters.get("weight")
    if weight is None or weight.shape != (width,):
        return None
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(6, width, generator=generator) * torch.tensor([1.0, 10.0, 100.0, 1.0, 10.0, 3.0])[:, None]
    x = (x + torch.tensor([0.0, 0.0, 0.0, 5.0, -50.0, 1.0])[:, None]).to(weight)
    shift = norm._parameters.get("bias")
    y = norm(x).float() - (0.0 if shift is None else shift.float())
    for centred in (True, False):
        plain = F.layer_norm(x.float(), (width,)) if centred else F.rms_norm(x.float(), (width,))
        for offset in (0.0, 1.0):
            wanted = plain * (weight.float() + offset)
            if torch.allclose(y, wanted, rtol=2e-2, atol=2e-2 * float(wanted.abs().max())):
                return centred, offset
    return None
