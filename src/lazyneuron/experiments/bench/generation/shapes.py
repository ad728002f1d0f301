"""Sizes of language models whose speed is measured."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shape:
    """A decoder's sizes.

    Attributes:
        name: on the page.
        family: ``"llama"`` (gated blocks, grouped heads) or ``"opt"`` (plain blocks).
        width: of the hidden states.
        hidden: neurons of a block.
        layers: blocks.
        heads, kv_heads: of the queries, and of keys and values.
        vocabulary: entries of the embedding and of the head, which are not tied.
    """

    name: str
    family: str
    width: int
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    vocabulary: int


TINYLLAMA = Shape(
    name="TinyLlama", family="llama", width=2048, hidden=5632, layers=22, heads=32, kv_heads=4, vocabulary=32000
)
LLAMA_1B = Shape(
    name="Llama-3.2-1B", family="llama", width=2048, hidden=8192, layers=16, heads=32, kv_heads=8, vocabulary=128256
)
OPT = Shape(name="OPT-1.3B", family="opt", width=2048, hidden=8192, layers=24, heads=32, kv_heads=32, vocabulary=50272)
SMALL = Shape(name="small", family="llama", width=512, hidden=1408, layers=4, heads=8, kv_heads=2, vocabulary=4096)
SMALL_PLAIN = Shape(
    name="small plain", family="opt", width=512, hidden=2048, layers=4, heads=8, kv_heads=8, vocabulary=4096
)
NARROW = Shape(name="narrow", family="llama", width=128, hidden=256, layers=22, heads=4, kv_heads=2, vocabulary=256)
