"""What the kernels read of a layer: its rows as they lie, kept or in one of the quantised formats."""

from __future__ import annotations

import dataclasses
import functools

import torch
from torch import Tensor

from lazyneuron.ops.quantised.format import blocks

KEPT = 16  # "bits" of weights in the dtype of x


@dataclasses.dataclass(frozen=True, kw_only=True)
class Layer:
    """A matrix by rows, and its bias.

    Attributes:
        rows: (n, width) in the dtype of x, or bytes of :class:`~lazyneuron.ops.quantised.format.Rows` (those along the
            input) or :class:`~lazyneuron.ops.quantised.format.Columns` (``down`` by neuron); neighbours in a row lie
            side by side.
        scale: of quantised rows, else None.
        bias: (outputs,) in the dtype of x, or None.
    """

    rows: Tensor
    scale: Tensor | None = None
    bias: Tensor | None = None


@functools.lru_cache(maxsize=64)
def units(padded: int, group: int, device: torch.device) -> Tensor:
    """Where the 64-byte units of a 4-bit row begin: int32 (units, 3) of element, steps of the block, its number."""
    found, start = [], 0
    for number, steps in enumerate(blocks(padded, group)):
        found += [(start + 8 * pair, steps, number) for pair in range(steps // 2)]
        start += 64 * steps
    return torch.tensor(found, dtype=torch.int32, device=device)
