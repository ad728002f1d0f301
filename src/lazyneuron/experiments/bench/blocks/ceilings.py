"""Bytes and FLOPs that a certified step cannot do without, and how fast this machine reads and multiplies."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from lazyneuron.blocks import MLPBlock
from lazyneuron.core.timing import repeated
from lazyneuron.ops.sparse_mlp.packed import PackedBlock

_GEMM_TOKENS = 256
_TOKENS_LOOKED_AT = 128


@dataclasses.dataclass(frozen=True, kw_only=True)
class Needs:
    """What one step asks for.

    Attributes:
        bytes: sketch, and rows of neurons that some token needs. Above 128 tokens the union over 128 of them stands
            for that over all, so that the figure stays a lower bound.
        flops: of the exact rows, a multiply-add is two; the int8 operations of the sketch are left out.
        computed: share of (token, neuron) pairs that the certificate leaves open.
        fired: share of pairs that fire.
        union: share of neurons that fire on at least one of the tokens looked at.
        missed: share of firing pairs that the certificate would skip; anything but 0 is a fault.
    """

    bytes: int
    flops: float
    computed: float
    fired: float
    union: float
    missed: float


def needs(packed: PackedBlock, levels: Tensor, x: Tensor, fires: Tensor) -> Needs:
    """What a step over ``x`` needs.

    Args:
        packed: the block.
        levels: the sketch's integers as float32 (d_hidden, d_in), from :func:`sketch_levels`.
        x: (tokens, d_in).
        fires: (tokens, d_hidden) from :func:`lazyneuron.experiments.bench.blocks.truth.evaluate`.

    Source:
        One token: ``d d_hidden (1 + w (c + a))`` bytes with w bytes a weight, computed share c and firing share a;
        several: c and a of the union for bytes, per token for FLOPs. A gated block has two exact layers after its gate.
    """
    seen = slice(0, _TOKENS_LOOKED_AT)
    open_ = _undecided(packed, levels, x[seen])
    fires_seen = fires[seen]
    layers = 1 if packed.up_rows is None else 2
    width = packed.first_rows.element_size()
    union_open, union = float(open_.any(0).float().mean()), float(fires_seen.any(0).float().mean())
    computed, fired = float(open_.float().mean()), float(fires.float().mean())
    size = packed.d_hidden * packed.d_in
    return Needs(
        bytes=int(size * (1 + width * (union_open + layers * union))),
        flops=2.0 * len(x) * size * (computed + layers * fired),
        computed=computed,
        fired=fired,
        union=union,
        missed=float((fires_seen & ~open_).sum()) / max(int(fires_seen.sum()), 1),
    )


def sketch_levels(packed: PackedBlock) -> Tensor:
    """The sketch's integers as float32; made once for some weights."""
    return packed.sketch.quantised_rows().float()


def _undecided(packed: PackedBlock, levels: Tensor, x: Tensor) -> Tensor:
    scale, bias, slack, _, absolute, _ = packed.sketch.certificate[:, : packed.d_hidden]
    wide = x.float()
    z = wide @ levels.T * scale + bias
    reach = wide.norm(dim=-1, keepdim=True) * slack + absolute
    return ~packed.zero.holds(z - reach, z + reach)


def plain_read(packed: PackedBlock, moved: int) -> tuple[Callable[[Tensor], Tensor], int]:
    """A callable that only reads about as many bytes of the packed buffers as a step must, and that number."""
    left, parts = moved, []
    rows = [packed.sketch.panels, packed.first_rows, packed.down_rows]
    for tensor in [*rows, *([] if packed.up_rows is None else [packed.up_rows])]:
        flat = tensor.flatten().view(torch.uint8)
        take = min(left, flat.numel()) // 8 * 8
        if take > 0:
            parts.append(flat[:take].view(torch.int64))
        left -= take
    return lambda _: torch.stack([part.sum() for part in parts]), sum(8 * part.numel() for part in parts)


def gemm_gflops(block: MLPBlock, *, rounds: int = 5) -> float:
    """Rate of torch's plain matrix product with the block's first layer over 256 tokens, in 10^9 FLOPs a second."""
    weight = block.up.weight
    x = torch.ones(_GEMM_TOKENS, block.d_in, dtype=weight.dtype)
    taken = repeated(lambda: F.linear(x, weight), rounds=rounds, warm_up=1)
    return 2 * _GEMM_TOKENS * weight.numel() / taken.median_us / 1e3
