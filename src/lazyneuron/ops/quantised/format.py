"""Quantised matrices: how a row of numbers becomes bytes and scales, and what the bytes mean."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from lazyneuron.core.errors import AssumptionError, ConfigError, ShapeError

GROUPS = (32, 64, 128)
NOT_FINITE = "{} holds NaN or infinity, which no quantised format keeps; mend the weights first."
_CHUNK = 1 << 24  # numbers that are worked on at once
# by bits, the largest scale whose multiples are finite
_MOST = {8: torch.finfo(torch.float32).max / 127 * (1 - 2.0**-23), 4: torch.finfo(torch.bfloat16).max / 8}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Format:
    """How weights are stored.

    Attributes:
        bits: 8 (one float32 scale a row) or 4 (one bfloat16 scale for each group along the row).
        group: weights that share a scale; of 4 bits only.
    """

    bits: int
    group: int = 32

    def __post_init__(self) -> None:
        if self.bits not in (4, 8):
            raise ConfigError(f"Quantised weights have 4 or 8 bits, got {self.bits}.")
        if self.group not in GROUPS:
            raise ConfigError(f"A scale group has {', '.join(map(str, GROUPS))} weights, got {self.group}.")

    @property
    def name(self) -> str:
        """``"int8"`` or ``"int4"``."""
        return f"int{self.bits}"

    def check_width(self, width: int, what: str) -> None:
        """Make sure that rows of this width can be stored.

        Raises:
            ShapeError: groups do not divide them.
        """
        if self.bits == 4 and width % self.group:
            raise ShapeError(
                f"{what} has rows of {width} weights, which groups of {self.group} do not divide; choose another group "
                f"size of {', '.join(map(str, GROUPS))}, or int8."
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rows:
    """A matrix whose rows run along the input: those of a linear layer.

    Attributes:
        format: of the bytes.
        bytes: uint8 (rows, padded), ``q + 128`` in order; of 4 bits (rows, padded / 2), ``q + 8`` a nibble in blocks.
        scale: float32 (rows,); of 4 bits bfloat16 (rows, blocks, 16).
        width: numbers in a row.
    """

    format: Format
    bytes: Tensor
    scale: Tensor
    width: int

    @property
    def stored_bytes(self) -> int:
        """Bytes of weights and scales."""
        return sum(t.numel() * t.element_size() for t in (self.bytes, self.scale))

    def dequantised(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """What the rows mean: (rows, width)."""
        q, scale = self._numbers()
        return (q.to(dtype) * scale.to(dtype)).reshape(q.shape[0], -1)[:, : self.width]

    def _numbers(self) -> tuple[Tensor, Tensor]:
        if self.format.bits == 8:
            return self.bytes.to(torch.int16) - 128, self.scale[:, None]
        rows, padded = self.bytes.shape[0], 2 * self.bytes.shape[1]
        q = torch.empty(rows, padded, dtype=torch.int16, device=self.bytes.device)
        scale = torch.empty(rows, padded, device=self.bytes.device)
        start = 0
        for number, steps in enumerate(blocks(padded, self.format.group)):
            size = 64 * steps
            pairs = self.bytes[:, start // 2 : (start + size) // 2].reshape(rows, steps // 2, 1, 16, 4)
            nibbles = torch.cat([pairs & 15, pairs >> 4], 2).reshape(rows, steps, 16, 4)
            q[:, start : start + size] = nibbles.transpose(1, 2).reshape(rows, size).to(torch.int16) - 8
            scale[:, start : start + size] = self.scale[:, number].float().repeat_interleave(4 * steps, 1)
            start += size
        return q, scale


@dataclasses.dataclass(frozen=True, kw_only=True)
class Columns:
    """``down`` by neuron: row i is what neuron i adds to the output.

    Attributes:
        format: of the bytes.
        bytes: int8 (d_hidden, d_out); of 4 bits uint8 (d_hidden, d_out / 2), numbers k and k + 16 of 32 share a byte.
        scale: float32 (d_hidden,); of 4 bits bfloat16 (d_hidden, d_out / group).
    """

    format: Format
    bytes: Tensor
    scale: Tensor

    @property
    def stored_bytes(self) -> int:
        """Bytes of weights and scales."""
        return sum(t.numel() * t.element_size() for t in (self.bytes, self.scale))

    def dequantised(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """What the rows mean: (d_hidden, d_out)."""
        if self.format.bits == 8:
            return self.bytes.to(dtype) * self.scale.to(dtype)[:, None]
        pairs = self.bytes.reshape(self.bytes.shape[0], -1, 1, 16)
        q = torch.cat([pairs & 15, pairs >> 4], 2).reshape(self.bytes.shape[0], -1).to(dtype) - 8
        return q * self.scale.to(dtype).repeat_interleave(self.format.group, 1)


def blocks(padded: int, group: int) -> list[int]:
    """Steps of each block of a 4-bit row, as in csrc/quantised.h: a block has 64 weights a step."""
    found, step = [], group // 4
    while padded:
        while 64 * step > padded:
            step //= 2
        found.append(step)
        padded -= 64 * step
    return found


def quantise_rows(weight: Tensor, form: Format, *, what: str = "A layer") -> Rows:
    """Quantise a matrix row by row, to the nearest: the definition, which `quantise.py` calls where no kernel runs.

    Args:
        weight: (rows, width), of any floating dtype.
        form: the format.
        what: what the matrix is, for messages.

    Raises:
        ShapeError: groups do not divide the width.
        AssumptionError: weights that are not finite.
    """
    form.check_width(weight.shape[1], what)
    _check_finite(weight, what)
    step = 64 if form.bits == 8 else 128
    padded = -(-weight.shape[1] // step) * step
    per_chunk = max(1, _CHUNK // padded)
    parts = [_pack_rows(piece.detach(), form, padded) for piece in torch.split(weight, per_chunk)]
    data, scale = (torch.cat(side) for side in zip(*parts, strict=True))
    return Rows(format=form, bytes=data, scale=scale, width=weight.shape[1])


def quantise_columns(down: Tensor, form: Format, *, what: str = "down") -> Columns:
    """Quantise ``down`` neuron by neuron: the definition, as :func:`quantise_rows`.

    Args:
        down: (d_out, d_hidden), as the linear layer holds it.
        form: the format; of 4 bits, groups run along d_out.
        what: what the matrix is, for messages.

    Raises:
        ShapeError: groups do not divide d_out.
        AssumptionError: weights that are not finite.
    """
    form.check_width(down.shape[0], what)
    _check_finite(down, what)
    per_chunk = max(1, _CHUNK // down.shape[0])
    parts = []
    for piece in torch.split(down.detach(), per_chunk, 1):
        rows = piece.t().float().contiguous()
        if form.bits == 8:
            scale = row_scale(rows)
            parts.append((_nearest(rows, scale[:, None], 127).to(torch.int8), scale))
            continue
        grouped = rows.reshape(rows.shape[0], -1, form.group)
        scale = group_scale(grouped)
        q = (
            (_nearest(grouped, scale[..., None].float(), 8, top=7) + 8)
            .to(torch.uint8)
            .reshape(rows.shape[0], -1, 2, 16)
        )
        parts.append(((q[:, :, 0] | q[:, :, 1] << 4).reshape(rows.shape[0], -1), scale))
    data, scale = (torch.cat(side) for side in zip(*parts, strict=True))
    return Columns(format=form, bytes=data, scale=scale)


def row_scale(rows: Tensor) -> Tensor:
    """The scale of each row of 8-bit weights: its largest magnitude becomes 127."""
    if not rows.shape[-1]:
        return torch.zeros(rows.shape[:-1])
    return (rows.abs().amax(-1).float() / 127).clamp_max(_MOST[8])


def group_scale(grouped: Tensor) -> Tensor:
    """The scale of each group of 4-bit weights, (..., group) to (...): of a few candidates that with the least squares.

    The largest magnitude becomes -8 (whatever its sign: a scale may be negative), or a little more, which cuts it off.
    """
    at = grouped.abs().argmax(-1, keepdim=True)
    extreme = grouped.gather(-1, at)
    best, best_error = None, None
    for top in (8.0, 7.6, 7.2, 8.4, 8.9):
        scale = (extreme / -top).clamp(-_MOST[4], _MOST[4]).to(torch.bfloat16).float()
        error = _sum_by_halves((_nearest(grouped, scale, 8, top=7) * scale - grouped).square())
        if best is None or best_error is None:
            best, best_error = scale, error
        else:
            better = error < best_error
            best, best_error = torch.where(better, scale, best), torch.where(better, error, best_error)
    assert best is not None
    return best[..., 0].to(torch.bfloat16)


def _sum_by_halves(values: Tensor) -> Tensor:
    """Sums over the last axis, which is kept, in one order: every machine chooses the same of two close candidates."""
    while values.shape[-1] > 1:
        half = values.shape[-1] // 2
        values = values[..., :half] + values[..., half:]
    return values


def _pack_rows(weight: Tensor, form: Format, padded: int) -> tuple[Tensor, Tensor]:
    rows = weight.float()
    n, width = rows.shape
    if form.bits == 8:
        scale = row_scale(rows)
        out = torch.full((n, padded), 128, dtype=torch.uint8)
        out[:, :width] = (_nearest(rows, scale[:, None], 127) + 128).to(torch.uint8)
        return out, scale
    grouped = rows.reshape(n, -1, form.group)
    group = group_scale(grouped)
    q = torch.full((n, padded), 8, dtype=torch.uint8)
    q[:, :width] = (_nearest(grouped, group[..., None].float(), 8, top=7) + 8).to(torch.uint8).reshape(n, width)
    every = torch.zeros(n, padded // 32, dtype=torch.bfloat16)
    every[:, : width // 32] = group.repeat_interleave(form.group // 32, 1)
    data, scales, start = [], [], 0
    for steps in blocks(padded, form.group):
        size = 64 * steps
        steps_first = q[:, start : start + size].reshape(n, 16, steps, 4).transpose(1, 2).reshape(n, steps // 2, 2, 64)
        data.append((steps_first[:, :, 0] | steps_first[:, :, 1] << 4).reshape(n, size // 2))
        lanes = torch.arange(start, start + size, 4 * steps) // 32
        scales.append(every[:, lanes])
        start += size
    return torch.cat(data, 1), torch.stack(scales, 1)


def _nearest(values: Tensor, scale: Tensor, lowest: int, *, top: int | None = None) -> Tensor:
    """``values / scale`` rounded to integers in [-lowest, top]; 0 where the scale is."""
    safe = torch.where(scale == 0, torch.ones_like(scale), scale)
    q = (values / safe).round_().clamp_(-lowest, lowest if top is None else top)
    return torch.where(scale == 0, torch.zeros_like(q), q)


def _check_finite(weight: Tensor, what: str) -> None:
    if not bool(torch.isfinite(weight).all()):
        raise AssumptionError(NOT_FINITE.format(what))
