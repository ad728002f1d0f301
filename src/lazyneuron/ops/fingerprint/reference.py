"""What the fingerprint operators say, by a checksum of the standard library: which memory has changed, if any."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import torch
from torch import Tensor

PIECE = 4096  # bytes, as in csrc/fingerprint_bindings.h


def fingerprint(memories: Sequence[Tensor]) -> Tensor:
    """As the native operator of this name, with other numbers: int64, one for each piece."""
    prints = [_print(piece) for memory in memories for piece in _pieces(memory)]
    return torch.tensor(prints, dtype=torch.int64)


def _pieces(memory: Tensor) -> Sequence[Tensor]:
    return torch.split(memory, PIECE) if memory.ndim == 1 else torch.unbind(memory)  # type: ignore[no-untyped-call]


def _print(piece: Tensor) -> int:
    return zlib.crc32(piece.numpy().data)


def first_change(memories: list[Tensor], wanted: Tensor, turn: int, turns: int, parts: int) -> int:
    """As the native operator of this name."""
    start = 0
    for number, memory in enumerate(memories):
        pieces = _pieces(memory)
        begin = len(pieces) * turn // turns
        end = min(max(begin + 1, len(pieces) * (turn + parts) // turns), len(pieces))
        if any(_print(pieces[k]) != int(wanted[start + k]) for k in range(begin, end)):
            return number
        start += len(pieces)
    return -1
