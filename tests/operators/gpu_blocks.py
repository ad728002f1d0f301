"""Small blocks for the kernels of GPUs, by layers, on the device that runs them."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from lazyneuron.blocks.activation import Activation
from lazyneuron.ops.gpu_mlp import operators, reference
from lazyneuron.ops.gpu_mlp.layer import Layer
from lazyneuron.ops.gpu_mlp.tiles import Tiles
from lazyneuron.ops.quantised.format import Format, quantise_columns, quantise_rows
from tests.gpu import DEVICE

SMALL = Tiles(inputs=64, columns=32, segments=2)  # so that small blocks have several programs of each kind


@dataclasses.dataclass(frozen=True, kw_only=True)
class Block:
    """What the operators take, and the same for the definition."""

    first: Layer
    up: Layer | None
    down: Layer
    activation: Activation
    form: Format | None
    rectify_up: bool = False

    def run(self, x: Tensor, *, tiles: Tiles | None = SMALL, counts: Tensor | None = None, **others: float) -> Tensor:
        """By the kernels."""
        arguments = operators.block_arguments(
            self.first, self.down, activation=self.activation.compared(x.dtype), up=self.up, form=self.form,
            counts=operators.new_counts(x.device) if counts is None else counts, rectify_up=self.rectify_up,
            tiles=tiles, **others,
        )  # fmt: skip
        return operators.op("mlp")(x, *arguments)

    def hidden(self, x: Tensor) -> Tensor:
        """By the definition."""
        return reference.hidden(
            x, self.first, activation=self.activation.compared(x.dtype), up=self.up, rectify_up=self.rectify_up,
            form=self.form,
        )  # fmt: skip

    def wanted(self, x: Tensor) -> Tensor:
        """By the definition."""
        return reference.down(self.hidden(x), self.down, self.form).to(x.dtype)


def make(
    d_in: int = 160,
    d_hidden: int = 70,
    d_out: int = 96,
    *,
    dtype: torch.dtype = torch.float32,
    form: Format | None = None,
    gated: bool = False,
    rectify_up: bool = False,
    bias: bool = True,
    shift: float = -1.0,
    activation: Activation | None = None,
    seed: int = 0,
) -> Block:
    """Normal weights; ``shift`` is added to the deciding bias."""
    g = torch.Generator().manual_seed(seed)

    def vector(size: int, offset: float = 0.0) -> Tensor | None:
        made = (torch.randn(size, generator=g) * 0.1 + offset).to(dtype).to(DEVICE)
        return made if bias else None

    def rows(offset: float) -> Layer:
        weight = torch.randn(d_hidden, d_in, generator=g) / d_in**0.5
        made = None if form is None else quantise_rows(weight, form)
        kept = weight.to(dtype) if made is None else made.bytes
        scale = None if made is None else made.scale.to(DEVICE)
        return Layer(rows=kept.to(DEVICE), scale=scale, bias=vector(d_hidden, offset))

    first, up = rows(shift), rows(0.0) if gated else None
    weight = torch.randn(d_out, d_hidden, generator=g) / d_hidden**0.5
    columns = None if form is None else quantise_columns(weight, form)
    kept = weight.t().contiguous().to(dtype) if columns is None else columns.bytes
    down = Layer(rows=kept.to(DEVICE), scale=None if columns is None else columns.scale.to(DEVICE), bias=vector(d_out))
    return Block(
        first=first, up=up, down=down, activation=activation or Activation("relu"), form=form, rectify_up=rectify_up
    )


def inputs(tokens: int, width: int, dtype: torch.dtype = torch.float32, *, seed: int = 0) -> Tensor:
    return torch.randn(tokens, width, generator=torch.Generator().manual_seed(seed)).to(dtype).to(DEVICE)
