"""The native operators, each with a fake implementation for compilers."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor

from lazyneuron.ops.choice import with_fakes


@functools.cache
def operators() -> Any:
    """The native operators ``rms_norm``, ``single_query_attention``, ``attention_step`` and ``decoder_layers``.

    The first two are defined in :mod:`lazyneuron.ops.decoding.reference`, the others in
    :mod:`lazyneuron.ops.decoding.step` and :mod:`lazyneuron.ops.decoding.layers`.

    Raises:
        ImplUnavailable: the kernels are not built here, with the reason.
    """
    return with_fakes(
        {
            "rms_norm": _fake_norm,
            "single_query_attention": _fake_attention,
            "attention_step": _fake_step,
            "decoder_layers": _fake_layers,
        }
    )


def _fake_norm(x: Tensor, weight: Tensor, eps: float, offset: float, rounds_first: bool, isa: int = -1) -> Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)


def _fake_attention(q: Tensor, k: Tensor, v: Tensor, scale: float, isa: int = -1) -> Tensor:
    return q.new_empty((q.shape[0], 1, q.shape[1], q.shape[3]))


def _fake_step(x: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    like = torch.empty_like(x, memory_format=torch.contiguous_format)
    return like, torch.empty_like(like)


def _fake_layers(x: Tensor, cos: Tensor, sin: Tensor, weights: list[Tensor], keys: list[Tensor], *rest: Any) -> Any:
    return [torch.empty_like(x, memory_format=torch.contiguous_format) for _ in keys]
