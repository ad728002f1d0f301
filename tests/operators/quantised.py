"""What quantised bytes mean, decoded one weight at a time, and inputs that the kernels' grid holds exactly."""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from lazyneuron.ops.quantised.format import Columns, Format, Rows, quantise_columns, quantise_rows

Block = tuple[Rows, Rows, Columns]


def decode_rows(data: Tensor, scale: Tensor, *, width: int, bits: int, group: int) -> Tensor:
    """(rows, width) float64."""
    if bits == 8:
        return (data[:, :width].double() - 128) * scale.double()[:, None]
    byte, high, block, lane = torch.tensor(_places(width, 2 * data.shape[1], group)).reshape(-1, 4).T
    stored = data[:, byte].long()
    return (torch.where(high == 1, stored >> 4, stored & 15) - 8) * scale.double()[:, block, lane]


@functools.cache
def _places(width: int, padded: int, group: int) -> list[tuple[int, int, int, int]]:
    """Of each int4 weight of a row: its byte, whether it is the high half, and the block and lane of its scale."""
    found = []
    start, steps, block = 0, group // 4, 0
    while start < padded:
        while 64 * steps > padded - start:
            steps //= 2
        for k in range(start, min(start + 64 * steps, width)):
            lane, inside = divmod(k - start, 4 * steps)
            step, byte = divmod(inside, 4)
            found.append((start // 2 + step // 2 * 64 + lane * 4 + byte, step % 2, block, lane))
        start, block = start + 64 * steps, block + 1
    return found


def decode_columns(data: Tensor, scale: Tensor, *, bits: int, group: int) -> Tensor:
    """(d_hidden, d_out) float64."""
    if bits == 8:
        return data.double() * scale.double()[:, None]
    out = torch.zeros(data.shape[0], 2 * data.shape[1], dtype=torch.float64)
    for k in range(out.shape[1]):
        stored = data[:, k // 32 * 16 + k % 16].long()
        nibble = stored >> 4 if k % 32 >= 16 else stored & 15
        out[:, k] = (nibble - 8).double() * scale[:, k // group].double()
    return out


def on_grid(tokens: int, width: int, *, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    """Inputs whose 16-bit grid has a step of 2^-12: what the kernels see of them is what they are."""
    g = torch.Generator().manual_seed(seed)
    bits = {torch.float32: 32512, torch.bfloat16: 127, torch.float16: 1016}[dtype]
    whole = torch.randint(-bits, bits + 1, (tokens, width), generator=g)
    whole[:, 0] = bits
    return (whole * (32512 // bits) * 2.0**-12).to(dtype)


def block(d_in: int, d_hidden: int, d_out: int, *, bits: int, group: int = 32, seed: int = 0) -> Block:
    g = torch.Generator().manual_seed(seed)
    form = Format(bits=bits, group=group)
    rows = [quantise_rows(torch.randn(d_hidden, d_in, generator=g) / d_in**0.5, form) for _ in range(2)]
    return rows[0], rows[1], quantise_columns(torch.randn(d_out, d_hidden, generator=g) / d_hidden**0.5, form)
