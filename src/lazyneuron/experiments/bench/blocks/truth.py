"""What a block's output is, and which neurons fire: plain torch in float32, the judge of every candidate."""

from __future__ import annotations

import sys

import torch
import torch.nn.functional as F
from torch import Tensor

from lazyneuron.blocks import MLPBlock

_ROWS_AT_ONCE = 2048


def evaluate(block: MLPBlock, x: Tensor) -> tuple[Tensor, Tensor]:
    """The dense block in float32 of the stored weights.

    Args:
        block: any block.
        x: (tokens, d_in).

    Returns:
        Output (tokens, d_out) in float32, and which neurons fire, boolean (tokens, d_hidden).
    """
    wide = x.float()
    y = torch.zeros(len(x), block.d_out)
    fires = torch.zeros(len(x), block.d_hidden, dtype=torch.bool)
    for start in range(0, block.d_hidden, _ROWS_AT_ONCE):
        part = slice(start, start + _ROWS_AT_ONCE)
        h = block.activation(_linear(wide, block.first.weight, block.first.bias, part))
        fires[:, part] = h != 0
        if block.gate is not None:
            h = h * _linear(wide, block.up.weight, block.up.bias, part)
        y += h @ block.down.weight[:, part].float().T
    if block.down.bias is not None:
        y += block.down.bias.float()
    return y, fires


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None, part: slice) -> Tensor:
    return F.linear(x, weight[part].float(), None if bias is None else bias[part].float())


def relative_error(got: Tensor, wanted: Tensor) -> float:
    """Root mean square of the difference over that of what was wanted."""
    scale = float(wanted.square().mean().sqrt()) or sys.float_info.min
    return float((got.float() - wanted).square().mean().sqrt()) / scale


def missed_share(used: Tensor, fires: Tensor) -> float:
    """Share of the firing (token, neuron) pairs that a method left out."""
    return float((fires & ~used).sum()) / max(int(fires.sum()), 1)
