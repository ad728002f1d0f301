"""The definition of ``attention_step``: one token of each sequence through the attention half of a decoder layer."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor

from lazyneuron.ops.decoding import reference
from lazyneuron.ops.quantised import reference as quantised
from lazyneuron.ops.quantised.format import Rows


@dataclasses.dataclass(frozen=True, kw_only=True)
class NormRule:
    """How an RMS norm computes; see :func:`lazyneuron.ops.decoding.reference.rms_norm`."""

    eps: float
    offset: float = 0.0
    rounds_first: bool = False

    def __call__(self, x: Tensor, weight: Tensor) -> Tensor:
        """The norm over the last axis."""
        return reference.rms_norm(x, weight, eps=self.eps, offset=self.offset, rounds_first=self.rounds_first)


def turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary position embedding (Su et al. 2021) of heads (..., width), whose two halves are the axes that turn."""
    first, second = x.chunk(2, -1)
    return x * cos + torch.cat((-second, first), -1) * sin


def attention_step(
    x: Tensor,
    norms: Sequence[Tensor],
    rule: NormRule,
    layers: Sequence[tuple[Rows, Tensor | None]],
    head_norms: Sequence[Tensor],
    angles: tuple[Tensor, Tensor],
    cache: tuple[Tensor, Tensor],
    at: int,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """``x + attention(norm(x))``, and what the layer's second norm makes of it, in float64.

    Args:
        x: (batch, 1, width).
        norms: weights of the norms before and after the attention, (width,).
        rule: how all norms compute.
        layers: weights and biases of queries, keys, values and of the projection back.
        head_norms: weights of norms of each query head and each key head, (head width,), or none.
        angles: cosines and sines of the positions, each (1 or batch, 1, head width).
        cache: keys and values (batch, heads that share, room, head width), of which ``at`` tokens are filled.
        at: where the new token's keys and values go.
        scale: multiplies the products of queries and keys.

    Returns:
        The sum and the second norm of it, both (batch, 1, width), and the cache with the new token.
    """
    x = x.double()
    normed = rule(x, norms[0])
    cos, sin = (angle.double()[:, None] for angle in angles)
    heads = [_heads(quantised.linear(normed, *layer), cos.shape[-1]) for layer in layers[:3]]
    if head_norms:
        heads[:2] = [rule(part, weight) for part, weight in zip(heads[:2], head_norms, strict=True)]
    queries, keys = (turned(part, cos, sin) for part in heads[:2])
    kept = [held.double().clone() for held in cache]
    for held, new in zip(kept, (keys, heads[2]), strict=True):
        held[:, :, at] = new[:, :, 0]
    read = [held[:, :, : at + 1] for held in kept]
    attended = reference.single_query_attention(queries, read[0], read[1], scale)
    y = x + quantised.linear(attended.flatten(2), *layers[3])
    return y, rule(y, norms[1]), kept[0], kept[1]


def _heads(x: Tensor, width: int) -> Tensor:
    """(batch, 1, heads * width) as (batch, heads, 1, width)."""
    return x.reshape(*x.shape[:-1], -1, width).transpose(1, 2)
