"""The definitions of the operators."""

from __future__ import annotations

import torch
from torch import Tensor


def rms_norm(x: Tensor, weight: Tensor, *, eps: float, offset: float = 0.0, rounds_first: bool = False) -> Tensor:
    """``(weight + offset) * x / sqrt(mean(x^2) + eps)`` over the last axis, in float32 (Zhang and Sennrich 2019).

    Args:
        x: (..., width).
        weight: (width,) in the dtype of x.
        eps: added to the mean of squares.
        offset: added to the weight, 1 in models that store the weight less one.
        rounds_first: round to the dtype of x before the weight multiplies.

    Returns:
        The shape and dtype of x.
    """
    wide = x.float()
    normed = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)
    if rounds_first:
        normed = normed.to(x.dtype).float()
    return (normed * (weight.float() + offset)).to(x.dtype)


def single_query_attention(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    """Scaled dot-product attention of one query for each sequence and head, to all keys.

    Args:
        q: (batch, heads, 1, width).
        k: (batch, shared, keys, width); heads are a multiple of shared, and neighbours share keys and values.
        v: like k.
        scale: multiplies the products.

    Returns:
        (batch, 1, heads, width) in the dtype of q.
    """
    groups = q.shape[1] // k.shape[1]
    wide_k, wide_v = (t.double().repeat_interleave(groups, 1) for t in (k, v))
    weights = (scale * q.double() @ wide_k.transpose(-1, -2)).softmax(-1)
    return (weights @ wide_v).transpose(1, 2).to(q.dtype)
