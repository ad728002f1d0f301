"""The definition in plain torch: each product of the dense activation, summed in float64."""

from __future__ import annotations

import torch
from torch import Tensor

from lazyneuron.ops.packing.reference import gather_fired, scatter_fired


def fired_rows(bits: Tensor, values: Tensor, rows: Tensor) -> Tensor:
    """The activation times a matrix: a sum of the neurons' rows for each token.

    Args:
        bits: which neurons fire, (tokens, ceil(neurons / 8)), of :func:`lazyneuron.ops.packing.reference.mark_fired`.
        values: of what fires, token by token.
        rows: (neurons, width).

    Returns:
        (tokens, width).
    """
    return (scatter_fired(bits, values, rows.shape[0]).double() @ rows.double()).to(rows.dtype)


def fired_columns(bits: Tensor, values: Tensor, dense: Tensor, neurons: int) -> Tensor:
    """The transposed activation times a matrix: a sum of tokens for each neuron.

    Args:
        bits, values: as for :func:`fired_rows`.
        dense: (tokens, width).
        neurons: how many there are.

    Returns:
        (neurons, width).
    """
    return (scatter_fired(bits, values, neurons).double().t() @ dense.double()).to(dense.dtype)


def fired_dots(bits: Tensor, dense: Tensor, rows: Tensor) -> Tensor:
    """The products of tokens and neurons' rows, where a neuron fires for a token.

    Args:
        bits: as for :func:`fired_rows`.
        dense: (tokens, width).
        rows: (neurons, width).

    Returns:
        (fired,), token by token.
    """
    return gather_fired(torch.mm(dense.double(), rows.double().t()), bits).to(dense.dtype)
