"""The certificate: an int8 sketch of a weight matrix and the slack that makes its verdict a proof.

Row ``i`` of the weight is ``w_i = c_i q_i + e_i`` with ``q_i`` in int8. For every input ``x`` the pre-activation
``z_i = w_i . x + b_i``, in exact arithmetic and in every fp32 summation order, is within
``slack_i ||x|| + quantised_i ||x - x_quantised|| + absolute_i`` of its sketch value, as long as ``||x|| <= limit_i``.
docs/accelerate.md has the proof.
"""

from __future__ import annotations

import dataclasses
import math

import torch
from torch import Tensor

from lazyneuron.blocks.activation import Activation
from lazyneuron.blocks.interval import ZeroInterval
from lazyneuron.core.errors import AssumptionError, ShapeError
from lazyneuron.ops.sparse_mlp.sketch import PANEL, Sketch

_ROWS_AT_ONCE = 1024  # bounds the float64 temporaries
_UNIT = 2.0**-24
_FEW = 16  # roundings that a sketch value has beside those of a sum
_SMALLEST = 2.0**-126  # of the normal numbers: what is below may be flushed to zero
_MOST = 2.0**126  # a quarter of float32's range
_UP = 1 + 2.0**-20  # over the rounding of the few operations that follow


def build_sketch(
    weight: Tensor,
    bias: Tensor | None,
    *,
    activation: Activation | None = None,
    up: tuple[Tensor, Tensor | None] | None = None,
) -> Sketch:
    """Sketch a weight.

    Args:
        weight: (d_hidden, d_in), float32, bfloat16 or float16; the sketch is of the stored values.
        bias: (d_hidden,) or None.
        activation: what the pre-activation goes into; None for a function of ReLU's zero interval.
        up: weight and bias of a gated block's ``up``, when ``weight`` is its gate.

    Returns:
        The packed sketch on the weight's device.

    Raises:
        AssumptionError: the weight or bias is not finite; nothing can be proved then.
        ShapeError: the weight is not a non-empty float matrix.

    Cost:
        One pass over the weights in float64, 1024 rows at a time; the result takes d_hidden * d_in bytes.

    Source:
        Ours; the floating-point part is the standard bound of dot products (Higham, Accuracy and Stability, 2002, 3.1).
    """
    if weight.ndim != 2 or weight.numel() == 0 or not weight.is_floating_point():
        raise ShapeError(f"A sketch needs a non-empty floating-point matrix, got {tuple(weight.shape)} {weight.dtype}.")
    hidden, d_in = weight.shape
    blocks = (hidden + PANEL - 1) // PANEL
    quads = (d_in + 3) // 4
    panels = torch.full((blocks, quads, PANEL, 4), 128, dtype=torch.uint8, device=weight.device)
    certificate = torch.zeros(6, blocks * PANEL, dtype=torch.float32, device=weight.device)
    certificate[1] = -math.inf  # padding neurons are never wanted
    at_zero = activation is None or activation.zero == ZeroInterval(0.0)
    for start in range(0, hidden, _ROWS_AT_ONCE):
        stop = min(start + _ROWS_AT_ONCE, hidden)
        rows, offset = _wide(weight, bias, start, stop)
        quantised, numbers = _sketch_rows(rows, offset, 0.0 if at_zero else _unit(weight.dtype))
        certificate[:5, start:stop] = numbers
        limit = _limit(rows, offset, _MOST if at_zero else _range(weight.dtype))
        if up is not None:
            limit = limit.minimum(_limit(*_wide(*up, start, stop), _range(weight.dtype)))
        certificate[5, start:stop] = limit
        padded = torch.zeros((stop - start + PANEL - 1) // PANEL * PANEL, quads * 4, dtype=torch.float64)
        padded[: stop - start, :d_in] = quantised
        packed = (padded + 128).to(torch.uint8).view(-1, PANEL, quads, 4).permute(0, 2, 1, 3)
        panels[start // PANEL : start // PANEL + packed.shape[0]] = packed
    return Sketch(panels=panels, certificate=certificate, d_hidden=hidden, d_in=d_in)


def _wide(weight: Tensor, bias: Tensor | None, start: int, stop: int) -> tuple[Tensor, Tensor]:
    """Some rows and their biases in float64."""
    rows = weight[start:stop].double()
    offset = rows.new_zeros(stop - start) if bias is None else bias[start:stop].double()
    if not (bool(torch.isfinite(rows).all()) and bool(torch.isfinite(offset).all())):
        raise AssumptionError("The weights of this layer hold NaN or infinity, so no neuron can be proved silent.")
    return rows, offset


def _sketch_rows(rows: Tensor, bias: Tensor, unit: float) -> tuple[Tensor, Tensor]:
    """Integers and certificate numbers of some rows, in float64; the numbers are rounded up to float32.

    ``unit`` is the relative error of rounding ``w . x`` before the bias is added, 0 where that moves no sign.
    """
    d_in = rows.shape[1]
    scale = (rows.abs().amax(1) / 127).float().double()
    scale = torch.where(scale >= _SMALLEST, scale, torch.zeros_like(scale))
    safe = torch.where(scale > 0, scale, torch.ones_like(scale))
    quantised = (rows / safe[:, None]).round().clamp(-127, 127)
    quantised = torch.where(scale[:, None] > 0, quantised, torch.zeros_like(quantised))
    error_norm = (rows - scale[:, None] * quantised).norm(dim=1)
    row_norm, sketch_norm = rows.norm(dim=1), scale * quantised.norm(dim=1)
    terms, gamma = d_in + _FEW, _gamma(d_in)
    tiny = math.sqrt(d_in) * _SMALLEST  # the norm of what a processor may read as zero
    slack = error_norm + gamma * (row_norm + sketch_norm) + tiny
    flushed = 8 * terms * _SMALLEST * (1 + scale) + tiny * (row_norm + sketch_norm)
    absolute = 2 * (gamma + unit) * bias.abs() + flushed
    numbers = torch.stack([slack, sketch_norm, absolute]) * _UP
    # a number below the smallest normal one would be rounded down, or read as zero
    return quantised, torch.cat([torch.stack([scale, bias]), numbers.clamp_min(_SMALLEST)]).float()


def with_bias(sketch: Sketch, bias: Tensor) -> Sketch:
    """The same sketch beside another bias (d_hidden,), for an activation function of ReLU's zero interval."""
    certificate = sketch.certificate.clone()
    _, before, _, _, absolute, limit = certificate[:, : sketch.d_hidden]
    old, new = before.double().abs(), bias.double().abs()
    rounding = absolute.double() + 2 * _gamma(sketch.d_in) * (new - old)
    certificate[4, : sketch.d_hidden] = (rounding * _UP).clamp_min(_SMALLEST).float()
    certificate[5, : sketch.d_hidden] = limit * ((_MOST - new) / (_MOST - old)).clamp_max(1.0).float()
    certificate[1, : sketch.d_hidden] = bias.float()
    return dataclasses.replace(sketch, certificate=certificate)


def _gamma(d_in: int) -> float:
    """The relative error of a sum of ``d_in`` products, and of the few roundings that the sketch adds."""
    return (d_in + _FEW) * _UNIT / (1 - (d_in + _FEW) * _UNIT)


def _limit(rows: Tensor, bias: Tensor, most: float) -> Tensor:
    """The norm of x up to which every partial sum of ``w . x + b``, and of its sketch, stays within ``most``."""
    norm = rows.norm(dim=1) * 2 + math.sqrt(rows.shape[1]) * _SMALLEST
    limit = (most - bias.abs()) / (norm * _UP)
    return torch.where(limit > 0, limit.clamp_max(_MOST), torch.full_like(limit, -1.0)).float()


def _unit(dtype: torch.dtype) -> float:
    return 0.0 if dtype == torch.float32 else torch.finfo(dtype).eps / 2


def _range(dtype: torch.dtype) -> float:
    return min(_MOST, torch.finfo(dtype).max * (1 - 2.0**-7))


def inner_zero_set(activation: Activation, dtype: torch.dtype) -> ZeroInterval:
    """The zero set with its ends moved inwards to numbers of ``dtype``, and further where ``dtype`` rounds twice.

    A model in ``dtype`` rounds ``z = w . x + b`` before the activation; rounding is monotone, so every ``z`` in this
    set is evaluated to exactly zero. That is so, too, where ``w . x`` is rounded before ``b`` is added.
    """
    zero = activation.compared(dtype).zero
    facts = torch.finfo(dtype)
    unit, half_step = _unit(dtype), facts.smallest_normal * facts.eps / 2

    def end(value: float, direction: float) -> float:
        if not math.isfinite(value) or value == 0:
            return value
        rounded = torch.tensor(value, dtype=torch.float64).to(dtype)
        if (rounded.double().item() - value) * direction < 0:
            rounded = torch.nextafter(rounded, torch.tensor(direction * math.inf, dtype=dtype))
        inner = float(rounded)
        if dtype == torch.float32:
            return inner
        return inner + direction * 2 * (unit * abs(inner) + half_step)

    return ZeroInterval(end(zero.left, -1.0), end(zero.low, 1.0), end(zero.high, -1.0))
