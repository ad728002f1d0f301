"""How quantised rows lie in memory: a row's scales behind its weights, in large pages that begin where pages begin."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lazyneuron.core.memory import HUGE_PAGE, advise_large_pages

Stored = tuple[tuple[int, ...], torch.dtype]  # shape and dtype
_LINE = 64  # bytes of a cache line


def laid_out(rows: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """The same numbers where kernels read them fastest: copies in the memory of :func:`zeros`."""
    placed = zeros((tuple(rows.shape), rows.dtype), (tuple(scale.shape), scale.dtype))
    return placed[0].copy_(rows), placed[1].copy_(scale)


def zeros(rows: Stored, scale: Stored) -> tuple[Tensor, Tensor]:
    """Rows and scales of these shapes, where kernels read them fastest.

    A row of 4-bit weights and its scales become one piece of memory: whoever reads scattered rows then waits once, and
    no table of scales in small pages costs walks through page tables.

    Args:
        rows: (n, numbers of a row), one byte each.
        scale: (n,) of 8-bit weights, (n, ...) of 4-bit ones.

    Returns:
        Both; of 4-bit weights two views of one storage, whose rows stand apart.
    """
    (n, width), (shape, kind) = rows[0], scale
    beside = math.prod(shape[1:]) * kind.itemsize if len(shape) > 1 else 0
    stride = -(-(width + beside) // _LINE) * _LINE if beside else width
    table = _large(n * stride).view(n, stride)
    if not beside:
        return table.view(rows[1]), torch.zeros(shape, dtype=kind)
    return table[:, :width].view(rows[1]), table[:, width : width + beside].view(kind).view(shape)


def _large(size: int) -> Tensor:
    """Bytes that begin at a large page, where they fill one."""
    if size < HUGE_PAGE:
        return torch.zeros(size, dtype=torch.uint8)
    memory = torch.empty(size + HUGE_PAGE, dtype=torch.uint8)
    start = -memory.data_ptr() % HUGE_PAGE
    part = memory[start : start + size]
    advise_large_pages(part)
    return part.zero_()
