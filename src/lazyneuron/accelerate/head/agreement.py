"""Whether torch's product of a row is the same number beside few other rows as beside all of them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from lazyneuron.accelerate.machine import products

LEAST_ROOM = 128  # beside fewer rows oneDNN's bf16 products sum in another order (torch 2.13, Zen 5)
_PROBES = 8
_CANCELLING = 256  # rows, at most, of which a probe's products cancel


def room_for(count: int) -> int:
    """The number of rows that a product of ``count`` candidates is made with: one of few, and a multiple of 64."""
    room = LEAST_ROOM
    while room < count:
        room = room * 3 // 2 if room & (room - 1) == 0 else room // 3 * 4
    return room


@torch.no_grad()
def rows_agree(weight: Tensor, x: Tensor, room: int) -> bool:
    """Compare products with ``room`` chosen rows, bit for bit, with the same entries of the product with all.

    A result of 16 bits hides most of what another order of sums changes. So each probe is made orthogonal to some of
    the rows: their products cancel, and what is left of them is rounded on a scale at which the order shows.

    Args:
        weight: (rows, d_in).
        x: of the shape and dtype of the inputs.
        room: the number of chosen rows, among them the last ones of the matrix, which kernels may treat differently.

    Cost:
        Eight products with all rows, and as many decompositions of some hundred of them.
    """
    if weight.dtype == torch.float32 and products.are_narrow():
        return False  # factors that are rounded are covered by no bound
    generator = torch.Generator().manual_seed(room)
    entries, width = weight.shape
    several = max(1, min(room, width // 2, _CANCELLING))
    last = torch.arange(max(0, entries - several // 2), entries)
    for _ in range(_PROBES):
        others = torch.randint(0, entries, (several - len(last),), generator=generator)
        rows = torch.randint(0, entries, (room,), generator=generator)
        rows[:several] = torch.cat([last, others])[:room]
        basis = torch.linalg.qr(weight.index_select(0, rows[:several]).double().T).Q
        probe = torch.randn(x.shape, generator=generator, dtype=torch.float64)
        probe = (probe - (probe @ basis) @ basis.T).to(x.dtype)
        rows = rows[torch.randperm(room, generator=generator)]
        few, whole = F.linear(probe, weight.index_select(0, rows)), F.linear(probe, weight)
        if not torch.equal(few, whole.index_select(-1, rows)):
            return False
    return True
