"""The definition in plain torch, on every device and dtype."""

from __future__ import annotations

import torch
from torch import Tensor

from lazyneuron.core.errors import ShapeError


def mark_fired(z: Tensor, factor: Tensor | None, left: float, low: float, high: float) -> Tensor:
    """Which numbers are kept: those outside ``(-inf, left]`` and ``[low, high]``, NaN included.

    Args:
        z: (tokens, neurons).
        factor: of the same shape; only where it is above 0 or NaN. None for everywhere.
        left, low, high: where nothing fires.

    Returns:
        uint8 (tokens, ceil(neurons / 8)): bit ``j % 8`` of byte ``j // 8`` is neuron j's; bits behind the last are 0.
    """
    kept = ~((z <= left) | ((z >= low) & (z <= high)))
    if factor is not None:
        kept &= ~(factor <= 0)
    tokens, width = z.shape
    whole = torch.nn.functional.pad(kept, (0, -width % 8)).reshape(tokens, (width + 7) // 8, 8)
    return (whole.to(torch.uint8) << _places(z.device)).sum(-1, dtype=torch.uint8)


def gather_fired(dense: Tensor, bits: Tensor) -> Tensor:
    """The kept numbers of (tokens, neurons), token by token, in the order of their neurons.

    Raises:
        ShapeError: the bits are those of another shape.
    """
    return dense[_unpacked(bits, dense.shape[0], dense.shape[1])]


def scatter_fired(bits: Tensor, values: Tensor, width: int) -> Tensor:
    """The (tokens, neurons) that has these values where the bits say so, and zeros elsewhere.

    Args:
        bits: from :func:`mark_fired`.
        values: as :func:`gather_fired` gives them.
        width: the number of neurons.

    Raises:
        ShapeError: bits and values do not fit.
    """
    kept = _unpacked(bits, bits.shape[0], width)
    if int(kept.sum()) != values.numel() or values.dim() != 1:
        raise ShapeError(
            f"The bits mark {int(kept.sum())} values, got {tuple(values.shape)}; pass those gathered by them."
        )
    dense = values.new_zeros(kept.shape)
    dense[kept] = values
    return dense


def _places(device: torch.device) -> Tensor:
    return torch.arange(8, dtype=torch.uint8, device=device)


def _unpacked(bits: Tensor, tokens: int, width: int) -> Tensor:
    if tuple(bits.shape) != (tokens, (width + 7) // 8) or bits.dtype != torch.uint8:
        raise ShapeError(f"The bits of ({tokens}, {width}) are uint8 ({tokens}, {(width + 7) // 8}), got {bits.shape}.")
    spread = ((bits[..., None] >> _places(bits.device)) & 1).reshape(tokens, 8 * bits.shape[1])
    if bool(spread[:, width:].any()):
        raise ShapeError(f"The bits go on behind the last of {width} neurons; mark them anew.")
    return spread[:, :width].bool()
