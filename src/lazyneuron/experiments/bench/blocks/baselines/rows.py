"""Computing with some rows of a matrix in plain torch, without copying them where torch can."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from lazyneuron.blocks import MLPBlock

MOST_GATHERED = 0.5  # above this share of neurons a gather copies so much that dense is faster


def weighted_rows(rows: Tensor, index: Tensor, weight: Tensor) -> Tensor:
    """``sum_k weight[k] rows[index[k]]`` for one token, read in place and shared out over torch's threads.

    Args:
        rows: (n, width), contiguous.
        index: (k,) int64.
        weight: (k,) in the rows' dtype.

    Returns:
        (1, width).
    """
    parts = torch.get_num_threads()
    offsets = torch.arange(parts) * len(index) // parts
    bags = F.embedding_bag(index, rows, offsets, mode="sum", per_sample_weights=weight)
    return bags.sum(0, keepdim=True)


class SomeNeurons:
    """A block that computes only the neurons it is told to.

    Args:
        block: the dense block; ``down`` is copied by neuron.
    """

    def __init__(self, block: MLPBlock) -> None:
        self.block = block
        self.down_rows = block.down.weight.t().contiguous()

    def hidden(self, x: Tensor, index: Tensor) -> Tensor:
        """The hidden activation (tokens, len(index)) of some neurons."""
        block = self.block
        h = block.activation(F.linear(x, *_some(block.first.weight, block.first.bias, index)))
        return h if block.gate is None else h * F.linear(x, *_some(block.up.weight, block.up.bias, index))

    def down(self, h: Tensor, index: Tensor) -> Tensor:
        """``down`` of the hidden activation (tokens, len(index)) of some neurons."""
        single = len(h) == 1
        y = weighted_rows(self.down_rows, index, h[0]) if single else h @ self.down_rows.index_select(0, index)
        return y if self.block.down.bias is None else y + self.block.down.bias

    def __call__(self, x: Tensor, index: Tensor) -> Tensor:
        """The output with these neurons alone."""
        return self.down(self.hidden(x, index), index)


def _some(weight: Tensor, bias: Tensor | None, index: Tensor) -> tuple[Tensor, Tensor | None]:
    return weight.index_select(0, index), None if bias is None else bias.index_select(0, index)
