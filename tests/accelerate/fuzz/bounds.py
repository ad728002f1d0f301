"""Intervals in float64 that hold every evaluation of a block which the theorem of docs/accelerate.md speaks of."""

from __future__ import annotations

import dataclasses
import math

import torch
import torch.nn.functional as F
from torch import Tensor

from lazyneuron.blocks.activation import Activation
from lazyneuron.blocks.interval import ZeroInterval
from lazyneuron.blocks.thresholded import RELATIVE, TINY
from lazyneuron.ops.sparse_mlp.packed import PackedBlock

UNIT = 2.0**-24
SMALLEST = 2.0**-126
FLOAT_MAX = float(torch.finfo(torch.float32).max)


def gelu(z: Tensor) -> Tensor:
    """Without the cancellation that torch's has in float64 too."""
    return 0.5 * z * torch.special.erfc(-z / math.sqrt(2))


def gelu_tanh(z: Tensor) -> Tensor:
    """(1 + tanh u) / 2 as a logistic function, for the same reason."""
    return z * torch.sigmoid(2 * math.sqrt(2 / math.pi) * (z + 0.044715 * z**3))


_SMOOTH = {
    "thresholded_silu": (F.silu, -1.2784645, 0.0),
    "thresholded_gelu": (gelu, -0.7517916, 2.0**-20),
    "thresholded_gelu_tanh": (gelu_tanh, -0.7524614, 2.0**-20),
    "offset_gelu": (gelu, -0.7517916, 2.0**-20),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Range:
    """Lower and upper bounds, and where a sum may leave the range of its dtype."""

    low: Tensor
    high: Tensor
    overflows: Tensor


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bounds:
    """What is known of one block on some inputs.

    Attributes:
        silent: (tokens, d_hidden), the deciding activation is 0 in every evaluation.
        safe: (tokens, d_hidden), `up` is finite in every evaluation, so that a silent neuron adds exactly 0.
        y: (tokens, d_out).
        clean: (tokens,), every number on the way is finite in every evaluation.
        settled: (tokens,), each number is finite in every evaluation, or it is the same infinity or NaN in all.
    """

    silent: Tensor
    safe: Tensor
    y: Range
    clean: Tensor
    settled: Tensor


def subnormal(t: Tensor) -> Tensor:
    """What a processor may take for zero, else 0."""
    return torch.where(t.abs() < SMALLEST, t, torch.zeros_like(t))


def positive(a: Tensor, b: Tensor) -> Tensor:
    """The sum of the positive products of ``a @ b.T``."""
    return a.relu() @ b.relu().T + (-a).relu() @ (-b).relu().T


def sums(x: Tensor, weight: Tensor, bias: Tensor | None, extra: Tensor | None = None) -> Range:
    """Of ``weight . x + bias``, before it is rounded to its dtype; ``extra`` is an error that x has besides."""
    b = weight.new_zeros(len(weight)) if bias is None else bias.double()
    middle, finite = x @ weight.T + b, x.nan_to_num(0.0, 0.0, 0.0)
    size = finite.abs() @ weight.abs().T + b.abs()
    error = (x.shape[1] + 3) * UNIT * 1.01 * size + 4 * (x.shape[1] + 2) * SMALLEST + (0.0 if extra is None else extra)
    small, less = subnormal(finite), subnormal(weight)
    # a product that is flushed is missing: that moves the sum to one side
    below = error + positive(small, weight) + positive(finite, less)
    above = error + positive(small, -weight) + positive(finite, -less)
    zero, fixed = torch.zeros_like(middle), torch.isfinite(middle)
    below, above = torch.where(fixed, below, zero), torch.where(fixed, above, zero)
    # infinity times what may be flushed is infinity or NaN
    open_ = torch.isinf(x).any(1)[:, None] & (less != 0).any(1)
    return Range(low=middle - below, high=middle + above, overflows=(size * 1.001 > FLOAT_MAX) | open_)


def rounded(r: Range, bias: Tensor | None, dtype: torch.dtype, *, twice: bool) -> Range:
    """Of numbers of ``dtype``: the sum rounded, and with ``twice`` also w . x rounded before the bias is added."""
    b = 0.0 if bias is None else bias.double()

    def once(t: Tensor) -> Tensor:
        return t.to(dtype).double()

    low, high = once(r.low), once(r.high)
    if twice and dtype != torch.float32:
        low, high = low.minimum(once(once(r.low - b) + b)), high.maximum(once(once(r.high - b) + b))
    return Range(low=low, high=high, overflows=r.overflows | (torch.isinf(low) != torch.isinf(high)))


def activated(act: Activation, z: Range, dtype: torch.dtype) -> tuple[Range, Tensor]:
    """The activation's range, and where it is certainly 0."""
    act = act.compared(dtype)
    if act.kind not in _SMOOTH and act.kind != "fatrelu":
        low, high = act(z.low), act(z.high)
        if act.kind == "jsrelu":  # a product on the way may overflow where the value does not
            cap = act.parameters[1] if math.isfinite(act.parameters[1]) else 0.0
            steep = z.high.relu() * z.high.relu().clamp_min(cap)
            z = dataclasses.replace(z, overflows=z.overflows | (steep > FLOAT_MAX / 4))
        grain = 8 * UNIT
        return _stored(low * (1 - grain), high * (1 + grain) + SMALLEST * (high > 0), z, dtype), z.high <= 0
    t, *rest = act.parameters
    if act.kind == "fatrelu":
        low, high = z.low, z.high
        silent, may = high <= t, low <= t
    else:
        function, dip, noise = _SMOOTH[act.kind]
        inside = (dip, 0.0, -7.999999)  # where an extremum may be, or where the cancelling part ends
        points = torch.stack([z.low, z.high, *(z.low.clamp_min(p).minimum(z.high) for p in inside)])
        values = function(points)
        errors = RELATIVE * values.abs() + TINY + noise * points.abs() * (points > -8)
        silent = ((values.abs() + errors) <= t).all(0)
        if noise:  # torch's may be exactly 0 there
            errors = torch.where(points <= -8, errors.maximum(values.abs()), errors)
        low, high = (values - errors).amin(0), (values + errors).amax(0)
        may = (values.abs() - errors).amin(0).to(dtype).double() <= t  # compared after rounding
        if rest:  # the pre-activation is compared, and what is rounded is subtracted from
            silent, may = z.high <= t, z.low <= t
            low, high = (e.to(dtype).double() - rest[0] for e in (low, high))
            low, high = low - 2 * UNIT * low.abs() - SMALLEST, high + 2 * UNIT * high.abs() + SMALLEST
        if noise:  # torch has evaluations that differ at infinity
            z = dataclasses.replace(z, overflows=z.overflows | torch.isinf(z.low) | torch.isinf(z.high))
    zero = torch.zeros_like(low)
    low, high = torch.where(may, low.minimum(zero), low), torch.where(may, high.maximum(zero), high)
    low, high = torch.where(silent, zero, low), torch.where(silent, zero, high)
    return _stored(low, high, z, dtype), silent


def _stored(low: Tensor, high: Tensor, z: Range, dtype: torch.dtype) -> Range:
    low, high = low.to(dtype).double(), high.to(dtype).double()
    low = torch.where((low > 0) & (low < SMALLEST), torch.zeros_like(low), low)
    high = torch.where((high < 0) & (high > -SMALLEST), torch.zeros_like(high), high)
    apart = (torch.isinf(low) != torch.isinf(high)) | (torch.isnan(low) != torch.isnan(high))
    near = ~torch.isinf(low) & (torch.maximum(low.abs(), high.abs()) > torch.finfo(dtype).max / 8)
    return Range(low=low, high=high, overflows=z.overflows | apart | near)


def product(a: Range, b: Range, dtype: torch.dtype) -> Range:
    """Of a product that is rounded to ``dtype``."""
    corners = torch.stack([p * q for p in (a.low, a.high) for q in (b.low, b.high)])
    low, high = corners.amin(0), corners.amax(0)
    finite = torch.isfinite(low) & torch.isfinite(high)
    low = torch.where(finite, low - 2 * UNIT * low.abs() - SMALLEST, low)
    high = torch.where(finite, high + 2 * UNIT * high.abs() + SMALLEST, high)
    fixed = (a.low == a.high) & (b.low == b.high) & (corners[0] == 0)
    low, high = torch.where(fixed, corners[0], low), torch.where(fixed, corners[0], high)
    return _stored(low, high, Range(low=low, high=high, overflows=a.overflows | b.overflows), dtype)


def bounds(packed: PackedBlock, x: Tensor) -> Bounds:
    """Of a packed block.

    Args:
        packed: the block.
        x: (tokens, d_in).
    """
    dtype, wide = packed.dtype, x.double()
    z = sums(wide, packed.first_rows.double(), packed.first_bias)
    at_zero = packed.activation.zero == ZeroInterval(0.0)  # there a second rounding moves no sign
    decided = rounded(z, packed.first_bias, dtype, twice=True)
    h, silent = activated(packed.activation, decided, dtype)
    silent = z.high <= 0 if at_zero else silent
    silent = silent & ~z.overflows & (_stays(z, packed.first_bias, dtype) | torch.tensor(at_zero))
    safe = torch.ones_like(silent)
    if packed.up_rows is not None:
        product_of = sums(wide, packed.up_rows.double(), packed.up_bias)
        safe = ~product_of.overflows & _stays(product_of, packed.up_bias, dtype)
        u = rounded(product_of, packed.up_bias, dtype, twice=True)
        if packed.rectifies_up:
            u = Range(low=u.low.relu(), high=u.high.relu(), overflows=u.overflows)
        h = product(h, u, dtype)
    y, finite, certain = _output(h, packed.down_rows.double(), packed)
    return Bounds(silent=silent, safe=safe, y=y, clean=finite & torch.isfinite(wide).all(1), settled=certain)


def _stays(r: Range, bias: Tensor | None, dtype: torch.dtype) -> Tensor:
    """Do w . x and w . x + b certainly stay within the range of ``dtype``?"""
    b = 0.0 if bias is None else bias.double()
    most = torch.finfo(dtype).max
    return torch.stack([r.low, r.high, r.low - b, r.high - b]).abs().amax(0) <= most  # False at NaN


def _output(h: Range, down: Tensor, packed: PackedBlock) -> tuple[Range, Tensor, Tensor]:
    dtype, b = packed.dtype, 0.0 if packed.down_bias is None else packed.down_bias.double()
    middle, radius = (h.low + h.high) / 2, (h.high - h.low) / 2
    size = torch.maximum(h.low.abs(), h.high.abs())
    flushed = subnormal(size) @ down.abs() + size @ subnormal(down).abs()
    terms = len(down) + 3
    error = radius @ down.abs() + terms * UNIT * 1.01 * (size @ down.abs()) + flushed + 8 * terms * SMALLEST
    y = middle @ down + b
    facts = torch.finfo(dtype)
    unit = UNIT if dtype == torch.float32 else facts.eps / 2
    size_of_y = y.abs() + error + (b.abs() if isinstance(b, Tensor) else 0.0)
    error = error + 2 * unit * size_of_y + facts.smallest_normal * facts.eps
    within = (size.nan_to_num(0.0, 0.0, 0.0) @ down.abs() < FLOAT_MAX / 4).all(1)
    finite = torch.isfinite(y).all(1) & ((y.abs() + error) < facts.max / 4).all(1) & ~h.overflows.any(1) & within
    fixed = (torch.isfinite(h.low) & torch.isfinite(h.high)) | (h.low == h.high) | (h.low.isnan() & h.high.isnan())
    certain = ~h.overflows.any(1) & fixed.all(1) & within
    apart = torch.isfinite(y) & ((y.abs() + error) >= facts.max / 4)
    open_ = torch.isinf(size).any(1) & bool((subnormal(down) != 0).any())
    return Range(low=y - error, high=y + error, overflows=~finite), finite, certain & ~apart.any(1) & ~open_
