"""Two limits for every comparison: relative RMS and worst element, from dtype and reduction length."""

from __future__ import annotations

import torch
from torch import Tensor

_UNIT = {torch.float32: 2.0**-24, torch.bfloat16: 2.0**-8, torch.float16: 2.0**-11}


def limits(dtype: torch.dtype, length: int) -> tuple[float, float]:
    """Largest allowed RMS and element error, relative to the RMS of what is expected.

    fp32 sums of ``length`` terms lose about sqrt(length) units; 16-bit models round three times on the way.
    """
    unit = _UNIT[dtype]
    rms = 4 * 2.0**-24 * length**0.5 if dtype == torch.float32 else 2.5 * unit
    return rms, 12 * rms


def check_close(got: Tensor, wanted: Tensor, *, length: int) -> None:
    """Fail unless both limits hold."""
    assert got.shape == wanted.shape and got.dtype == wanted.dtype
    if got.numel() == 0:
        return
    a, b = got.double(), wanted.double()
    scale = float(b.square().mean().sqrt()) or 1.0
    rms, worst = limits(got.dtype, length)
    assert float((a - b).square().mean().sqrt()) / scale <= rms
    assert float((a - b).abs().max()) / scale <= worst
