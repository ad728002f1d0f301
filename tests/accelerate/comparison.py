"""Two limits for every comparison, relative RMS and worst element, from dtype and reduction length."""

from __future__ import annotations

import torch
from torch import Tensor

# dtype: its unit of rounding, and the unit of the sums that are rounded to it
UNITS = {
    torch.float64: (2.0**-53, 2.0**-53),
    torch.float32: (2.0**-24, 2.0**-24),
    torch.bfloat16: (2.0**-8, 2.0**-24),
    torch.float16: (2.0**-11, 2.0**-24),
}


def limits(dtype: torch.dtype, *, length: int, elements: int, roundings: int = 0) -> tuple[float, float, float]:
    """Largest allowed RMS and element error, relative to the RMS of what is expected, and to the element itself.

    Wide sums of ``length`` terms lose about sqrt(length) units, more relative to few elements, which may cancel. A
    16-bit result rounds such a sum where the reference rounds its own: they agree, except that a share of the hidden
    values, ``p = sqrt(length) * wide / (2 unit)``, falls the other way by one step, and with them at most sqrt(p) of
    the outputs.

    Args:
        dtype: of the result.
        length: terms of the longest chain of sums.
        elements: of the result; a few of them may fall the other way whatever the share.
        roundings: how many times more than the reference an implementation rounds to ``dtype``.
    """
    unit, wide = UNITS[dtype]
    if unit == wide:
        rms = 8 * unit * length**0.5 * (1 + 64 / elements)
        return rms, 12 * rms, 0.0
    share = (length**0.5 * wide / (2 * unit)) ** 0.5
    rms = unit * (4 * (share + 4 / elements) + 2 * roundings) ** 0.5
    return rms, (2 + 6 * roundings) * unit, 2 * unit


def check_close(
    got: Tensor, wanted: Tensor, *, length: int, roundings: int = 0, magnitude: Tensor | None = None
) -> None:
    """Fail unless both limits of :func:`limits` hold; ``magnitude`` is what sums that cancel are made of."""
    assert got.shape == wanted.shape and got.dtype == wanted.dtype
    if got.numel() == 0:
        return
    a, b = got.double(), wanted.double()
    terms = b if magnitude is None else torch.maximum(b.abs(), magnitude.double())
    scale = float(terms.square().mean().sqrt()) or 1.0
    rms, worst, step = limits(got.dtype, length=length, elements=got.numel(), roundings=roundings)
    error = (a - b).abs()
    assert float(error.square().mean().sqrt()) / scale <= rms
    assert bool((error <= worst * scale + step * b.abs()).all())
