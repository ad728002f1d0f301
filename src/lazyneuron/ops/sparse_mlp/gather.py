"""The pure-PyTorch implementation: every neuron is computed, only the rows of ``down`` that fire are read."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from lazyneuron.ops.sparse_mlp.packed import PackedBlock


def sparse_mlp(packed: PackedBlock, x: Tensor) -> Tensor:
    """``down(s(up x))`` without compiled code.

    Args:
        packed: the block.
        x: (..., d_in) in the block's dtype.

    Returns:
        (..., d_out), equal to the reference up to rounding.

    Cost:
        Bytes for a few tokens: ``d_hidden itemsize (d_in + 2 d_out a)`` with a the union's firing share: the rows that
        fire are gathered, then multiplied.
    """
    # on x as it is: torch rounds once or twice, depending on its strides
    h = packed.activation(F.linear(x, packed.first_rows, packed.first_bias))
    if packed.up_rows is not None:
        up = F.linear(x, packed.up_rows, packed.up_bias)
        h = h * (F.relu(up) if packed.rectifies_up else up)
    h = h.reshape(-1, packed.d_hidden)
    fires = (h != 0).any(0).nonzero()[:, 0]
    y = h.index_select(1, fires) @ packed.down_rows.index_select(0, fires)
    if packed.down_bias is not None:
        y = y + packed.down_bias
    return y.reshape(*x.shape[:-1], packed.d_out)
