"""What quantised bytes mean, decoded one weight at a time, and inputs that the kernels' grid holds exactly."""

from __future__ import annotations

import torch
from torch import Tensor

from lazyneuron.ops.quantised.format import Columns, Format, Rows, quantise_columns, quantise_rows

Block = tuple[Rows, Rows, Columns]


def decode_rows(data: Tensor, scale: Tensor, *, width: int, bits: int, group: int) -> Tensor:
    """(rows, width) float64."""
    out = torch.zeros(data.shape[0], width, dtype=torch.float64)
    values, scales = data.tolist(), scale.double().tolist()
    for r in range(data.shape[0]):
        if bits == 8:
            out[r] = torch.tensor([(b - 128) * scales[r] for b in values[r][:width]], dtype=torch.float64)
            continue
        start, steps, block, padded = 0, group // 4, 0, 2 * len(values[r])
        while start < padded:
            while 64 * steps > padded - start:
                steps //= 2
            for k in range(start, min(start + 64 * steps, width)):
                lane, inside = divmod(k - start, 4 * steps)
                step, byte = divmod(inside, 4)
                stored = values[r][start // 2 + step // 2 * 64 + lane * 4 + byte]
                nibble = stored >> 4 if step % 2 else stored & 15
                out[r, k] = (nibble - 8) * scales[r][block][lane]
            start, block = start + 64 * steps, block + 1
    return out


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
