"""The certificate: an int8 sketch of a weight matrix and the slack that makes its verdict a proof.

Row ``i`` of the weight is ``w_i = c_i q_i + e_i`` with ``q_i`` in int8. For every input ``x`` the pre-activation
``z_i = w_i . x + b_i``, in exact arithmetic and in every fp32 summation order, is within
``slack_i ||x|| + quantised_i ||x - x_quantised|| + absolute_i`` of its sketch value. docs/accelerate.md has the proof.
"""

from __future__ import annotations

import dataclasses
import math

import torch
from torch import Tensor

from lazyneuron.blocks.activation import Activation
from lazyneuron.blocks.interval import ZeroInterval
from lazyneuron.core.errors import AssumptionError, ShapeError

PANEL = 64  # neurons a panel, as in csrc/problem.h
_ROWS_AT_ONCE = 1024  # bounds the float64 temporaries
_UNIT = 2.0**-24
_TINY = 1.5e-38  # more than any product that a processor may flush to zero


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sketch:
    """An int8 sketch of a weight of shape (d_hidden, d_in), packed in panels of 64 neurons.

    Attributes:
        panels: uint8 (padded_hidden / 64, padded_in / 4, 64, 4), each ``q + 128``; padding holds 128.
        certificate: float32 (5, padded_hidden): scale, bias, slack, quantised, absolute.
        d_hidden, d_in: the weight's shape.
    """

    panels: Tensor
    certificate: Tensor
    d_hidden: int
    d_in: int

    @property
    def bytes(self) -> int:
        """Memory that the sketch adds."""
        return self.panels.numel() + 4 * self.certificate.numel()

    def quantised_rows(self) -> Tensor:
        """The integers ``q`` as int8 (d_hidden, d_in)."""
        rows = self.panels.permute(0, 2, 1, 3).reshape(self.panels.shape[0] * PANEL, -1)
        return (rows[: self.d_hidden, : self.d_in].to(torch.int16) - 128).to(torch.int8)


def build_sketch(weight: Tensor, bias: Tensor | None) -> Sketch:
    """Sketch a weight.

    Args:
        weight: (d_hidden, d_in), float32, bfloat16 or float16; the sketch is of the stored values.
        bias: (d_hidden,) or None.

    Returns:
        The packed sketch on the weight's device.

    Raises:
        AssumptionError: the weight or bias is not finite; nothing can be proved then.
        ShapeError: the weight is not a non-empty float matrix.

    Cost:
        One pass over the weight in float64, 1024 rows at a time; the result takes d_hidden * d_in bytes.

    Source:
        Ours; the floating-point part is the standard bound of dot products (Higham, Accuracy and Stability, 2002, 3.1).
    """
    if weight.ndim != 2 or weight.numel() == 0 or not weight.is_floating_point():
        raise ShapeError(f"A sketch needs a non-empty floating-point matrix, got {tuple(weight.shape)} {weight.dtype}.")
    hidden, d_in = weight.shape
    blocks = (hidden + PANEL - 1) // PANEL
    quads = (d_in + 3) // 4
    panels = torch.full((blocks, quads, PANEL, 4), 128, dtype=torch.uint8, device=weight.device)
    certificate = torch.zeros(5, blocks * PANEL, dtype=torch.float32, device=weight.device)
    certificate[1] = -math.inf  # padding neurons are never wanted
    for start in range(0, hidden, _ROWS_AT_ONCE):
        stop = min(start + _ROWS_AT_ONCE, hidden)
        rows = weight[start:stop].double()
        offset = torch.zeros(stop - start, dtype=torch.float64, device=weight.device)
        if bias is not None:
            offset = bias[start:stop].double()
        if not (bool(torch.isfinite(rows).all()) and bool(torch.isfinite(offset).all())):
            raise AssumptionError("The weights of this layer hold NaN or infinity, so no neuron can be proved silent.")
        quantised, numbers = _sketch_rows(rows, offset)
        certificate[:, start:stop] = numbers
        padded = torch.zeros((stop - start + PANEL - 1) // PANEL * PANEL, quads * 4, dtype=torch.float64)
        padded[: stop - start, :d_in] = quantised
        packed = (padded + 128).to(torch.uint8).view(-1, PANEL, quads, 4).permute(0, 2, 1, 3)
        panels[start // PANEL : start // PANEL + packed.shape[0]] = packed
    return Sketch(panels=panels, certificate=certificate, d_hidden=hidden, d_in=d_in)


def _sketch_rows(rows: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """Integers and certificate numbers of some rows, in float64; the numbers are rounded up to float32."""
    d_in = rows.shape[1]
    scale = (rows.abs().amax(1) / 127).float().double()
    safe = torch.where(scale > 0, scale, torch.ones_like(scale))
    quantised = (rows / safe[:, None]).round().clamp(-127, 127)
    quantised = torch.where(scale[:, None] > 0, quantised, torch.zeros_like(quantised))
    error_norm = (rows - scale[:, None] * quantised).norm(dim=1)
    row_norm, sketch_norm = rows.norm(dim=1), scale * quantised.norm(dim=1)
    terms = d_in + 16
    gamma = terms * _UNIT / (1 - terms * _UNIT)
    up = 1 + 2.0**-20
    slack = (error_norm + gamma * (row_norm + sketch_norm)) * up
    absolute = 2 * gamma * bias.abs() + 4 * terms * _TINY
    numbers = torch.stack([scale, bias, slack, sketch_norm * up, absolute * up])
    return quantised, numbers.float()


def inner_zero_set(activation: Activation, dtype: torch.dtype) -> ZeroInterval:
    """The zero set with its ends moved inwards to numbers of ``dtype``.

    A model in ``dtype`` rounds ``z`` before the activation; rounding is monotone, so every ``z`` in this set is
    evaluated to exactly zero. Kinds that threshold a smooth function lose a few more units for its own rounding.
    """
    zero = activation.zero
    smooth = activation.kind.startswith("thresholded")
    margin = 4 * torch.finfo(dtype).eps if smooth and dtype != torch.float32 else 0.0

    def end(value: float, direction: float) -> float:
        if not math.isfinite(value) or value == 0:
            return value
        value += direction * abs(value) * margin
        rounded = torch.tensor(value, dtype=torch.float64).to(dtype)
        if (rounded.double().item() - value) * direction < 0:
            rounded = torch.nextafter(rounded, torch.tensor(direction * math.inf, dtype=dtype))
        return float(rounded)

    return ZeroInterval(end(zero.left, -1.0), end(zero.low, 1.0), end(zero.high, -1.0))


def certified_silent(sketch: Sketch, x: Tensor, zero: ZeroInterval) -> Tensor:
    """Which neurons are proved silent, by the definition in float64: the reference of the native test.

    Args:
        sketch: of a weight (d_hidden, d_in).
        x: (tokens, d_in); taken as it is, without quantisation.
        zero: where the activation is zero, ends already in the model's dtype.

    Returns:
        Boolean (tokens, d_hidden).
    """
    scale, bias, slack, _, absolute = sketch.certificate[:, : sketch.d_hidden].double()
    wide = x.double()
    z = wide @ (scale[:, None] * sketch.quantised_rows().double()).T + bias
    reach = wide.norm(dim=-1, keepdim=True) * slack + absolute
    finite = torch.isfinite(wide).all(-1, keepdim=True)
    return zero.holds(z - reach, z + reach) & finite
