"""Decoder layers that follow each other as one operator: what it is told of each, and its definition."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from torch import Tensor

# what a layer may have, in the order of their bits in csrc/decoder_layers_bindings.h
_HAS = (
    "head_norms", "biases", "out_bias", "rounds_first", "first_bias", "gated", "up_bias", "rectify_up", "down_bias",
    "every", "kept",
)  # fmt: skip


@dataclasses.dataclass(frozen=True, kw_only=True)
class LayerForm:
    """All of a layer but its tensors.

    Attributes:
        eps, offset, rounds_first: how its norms compute, see :class:`~lazyneuron.ops.decoding.step.NormRule`.
        scale: multiplies the products of queries and keys.
        attention, block: bits and group size of the weights of the attention and of the MLP block. Of a block that is
            ``kept``: int8 planes of its input in the sketch product, and 0.
        activation, parameters: of the block, by its number among the kernels' activations.
        head_norms: whether queries and keys have norms of their own.
        biases, out_bias: whether queries, keys and values have biases, and the projection back.
        gated: whether the block is; ``rectify_up``: whether its second factor is rectified too.
        first_bias, up_bias, down_bias: whether the block's layers have biases.
        every: whether all neurons' rows are read, whatever fires.
        kept: whether the block is on the model's own weights, with a certificate.
        zero: left, low and high of the interval on which its activation is zero.
    """

    eps: float
    offset: float
    rounds_first: bool
    scale: float
    attention: tuple[int, int]
    block: tuple[int, int]
    activation: int
    parameters: tuple[float, float]
    head_norms: bool = False
    biases: bool = False
    out_bias: bool = False
    gated: bool = False
    rectify_up: bool = False
    first_bias: bool = False
    up_bias: bool = False
    down_bias: bool = False
    every: bool = False
    kept: bool = False
    zero: tuple[float, float, float] = (0.0, 0.0, 0.0)

    def whole_numbers(self) -> list[int]:
        """As the operator's ``forms``."""
        has = sum(1 << place for place, name in enumerate(_HAS) if getattr(self, name))
        return [has, *self.attention, *self.block, self.activation]

    def fractions(self) -> list[float]:
        """As the operator's ``numbers``."""
        return [self.eps, self.offset, self.scale, *self.parameters, *self.zero]

    def read(self, weights: Iterator[Tensor]) -> tuple[dict[str, Any], dict[str, Any]]:
        """A layer's tensors out of the weights of all, as ``attention_step`` and the block's operator name them."""

        def some(n: int) -> list[Tensor]:
            return [next(weights) for _ in range(n)]

        def one(there: bool) -> Tensor | None:
            return next(weights) if there else None

        attention = {
            "norms": some(2), "head_norms": some(2 * self.head_norms), "rows": some(4), "scales": some(4),
            "biases": some(3 * self.biases), "out_bias": one(self.out_bias),
        }  # fmt: skip
        if self.kept:
            return attention, {
                "sketch": one(True), "certificate": one(True), "first_rows": one(True), "up_rows": one(self.gated),
                "up_bias": one(self.up_bias), "down_rows": one(True), "down_bias": one(self.down_bias),
            }  # fmt: skip
        block = {
            "first": one(True), "first_scale": one(True), "first_bias": one(self.first_bias), "up": one(self.gated),
            "up_scale": one(self.gated), "up_bias": one(self.up_bias), "down": one(True), "down_scale": one(True),
            "down_bias": one(self.down_bias),
        }  # fmt: skip
        return attention, block


def decoder_layers(
    x: Tensor,
    angles: tuple[Tensor, Tensor],
    weights: Sequence[Tensor],
    cache: Sequence[tuple[Tensor, Tensor]],
    counts: Sequence[Tensor],
    forms: Sequence[LayerForm],
    at: int,
    *,
    attention_step: Callable[..., tuple[Tensor, Tensor]],
    quantised_mlp: Callable[..., Tensor],
    sparse_mlp: Callable[..., Tensor],
) -> list[Tensor]:
    """The definition: ``y = s + mlp(n)`` with ``s, n = attention_step(y of the layer before)``, layer by layer.

    Args:
        x: (batch, 1, width).
        angles: cosines and sines of the positions.
        weights: of all layers, each in the order of :meth:`LayerForm.read`.
        cache: keys and values of each layer; written to at ``at``.
        counts: of each layer's block, see :func:`lazyneuron.ops.quantised.operators.block_arguments`.
        forms: of the layers.
        at: where the new token's keys and values go.
        attention_step, quantised_mlp, sparse_mlp: the operators of these names, or definitions of them.

    Returns:
        The output of each layer, like x.
    """
    out: list[Tensor] = []
    rest_of_weights = iter(weights)
    for form, (keys, values), counted in zip(forms, cache, counts, strict=True):
        attention, block = form.read(rest_of_weights)
        sums, normed = attention_step(
            out[-1] if out else x, eps=form.eps, offset=form.offset, rounds_first=form.rounds_first, **attention,
            bits=form.attention[0], group=form.attention[1], cos=angles[0], sin=angles[1], keys=keys, values=values,
            at=at, scale=form.scale,
        )  # fmt: skip
        same = {
            "rectify_up": form.rectify_up, "counts": counted, "activation": form.activation,
            "parameter0": form.parameters[0], "parameter1": form.parameters[1],
        }  # fmt: skip
        if form.kept:
            left, low, high = form.zero
            rest = sparse_mlp(normed, **block, **same, left=left, low=low, high=high, planes=form.block[0])
        else:
            bits, group = form.block
            rest = quantised_mlp(normed, **block, **same, bits=bits, group=group, every=form.every)
        out.append(sums + rest)
    return out
