"""Whether torch's product of a row is the same number beside few other rows as beside all of them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from lazyneuron.accelerate.machine import products

_ENTRIES = 4096  # that are compared for each of the inputs: one in a thousand differs when the order of sums does
_INPUTS = 2


def room_for(count: int) -> int:
    """The number of rows that a product of ``count`` candidates is made with: few different ones."""
    room = 32
    while room < count:
        room *= 2
    quarter = room // 8
    return max(32, -(-count // quarter) * quarter)


@torch.no_grad()
def rows_agree(weight: Tensor, x: Tensor, room: int) -> bool:
    """Compare products with ``room`` chosen rows, bit for bit, with the same entries of the product with all.

    Args:
        weight: (rows, d_in).
        x: of the shape, dtype and size of the inputs.
        room: the number of chosen rows; the first and last ones of the matrix are among them.

    Cost:
        Two products with all rows, and as many with few as make some thousands of entries.
    """
    if weight.dtype == torch.float32 and products.are_narrow():
        return False  # factors that are rounded are covered by no bound
    generator = torch.Generator().manual_seed(room)
    tokens = x.numel() // x.shape[-1]
    size = float(x.float().square().mean().sqrt()) or 1.0
    edge = torch.arange(len(weight) - min(room // 2, len(weight)), len(weight))
    for _ in range(_INPUTS):
        probe = (torch.randn(x.shape, generator=generator) * size).to(x.dtype)
        whole = F.linear(probe, weight)
        for number in range(max(4, _ENTRIES // (room * tokens))):
            rows = torch.randint(0, len(weight), (room,), generator=generator)
            if number % 2 == 0:
                rows[: len(edge)] = edge
                rows[-1] = 0
            few = F.linear(probe, weight.index_select(0, rows))
            if not torch.equal(few, whole.index_select(-1, rows)):
                return False
    return True
