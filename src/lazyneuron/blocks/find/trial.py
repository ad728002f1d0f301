"""Try a replacement of execution before it is offered: splice, run, compare, take back."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lazyneuron.blocks.block import MLPBlock
from lazyneuron.blocks.find.trace import Trace
from lazyneuron.blocks.splice import splice_
from lazyneuron.core.undo import Transaction


def decline(_: Tensor) -> None:
    """A run that always asks for the original path."""


def survives(block: MLPBlock, trace: Trace, model: nn.Module) -> bool:
    """Does the traced module compute the same with the block replaced, and with a replacement that declines?"""
    for run in (block.forward, decline):
        change = Transaction(model, "trial")
        try:
            splice_(change, block, run)
            result = trace.again({}).result
        except Exception:
            return False
        finally:
            change.roll_back()
        if len(result) != len(trace.result) or not all(map(_close, result, trace.result)):
            return False
    return True


def _close(a: Tensor, b: Tensor) -> bool:
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    if not a.dtype.is_floating_point or not a.numel():
        return torch.equal(a, b)
    limit = 1e-4 if a.dtype in (torch.float32, torch.float64) else 5e-2
    scale = b.double().abs().nan_to_num(posinf=0).amax()
    return torch.allclose(a.double(), b.double(), rtol=0, atol=limit * float(scale), equal_nan=True)
