"""Quantising matrices by the native kernel, which gives the bytes of `format.py`'s definition bit for bit."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lazyneuron.core.errors import AssumptionError
from lazyneuron.ops.choice import choose
from lazyneuron.ops.quantised import format as definition
from lazyneuron.ops.quantised.format import Columns, Format, Rows, blocks
from lazyneuron.ops.sparse_mlp.packed import DTYPES

_WIDEST = 32768  # as the kernel


def quantise_rows(weight: Tensor, form: Format, *, what: str = "A layer") -> Rows:
    """Quantise a matrix row by row, to the nearest.

    Args:
        weight: (rows, width), of any floating dtype and layout.
        form: the format.
        what: what the matrix is, for messages.

    Raises:
        ShapeError: groups do not divide the width.
        AssumptionError: weights that are not finite.

    Cost:
        One pass over the weights, and no copy of them in the usual layouts.
    """
    form.check_width(weight.shape[1], what)
    run = _native(weight)
    if run is None:
        return definition.quantise_rows(weight, form, what=what)
    rows, width = weight.shape
    step = 64 if form.bits == 8 else 128
    padded = -(-width // step) * step
    shape = (rows,) if form.bits == 8 else (rows, len(blocks(padded, form.group)), 16)
    data, scale = _empty(rows, padded, shape, form, torch.uint8)
    _run(run, weight, data, scale, form, by_neuron=False, what=what)
    return Rows(format=form, bytes=data, scale=scale, width=width)


def quantise_columns(down: Tensor, form: Format, *, what: str = "down") -> Columns:
    """Quantise ``down`` neuron by neuron.

    Args:
        down: (d_out, d_hidden), as the linear layer holds it.
        form: the format; of 4 bits, groups run along d_out.
        what: what the matrix is, for messages.

    Raises:
        ShapeError: groups do not divide d_out.
        AssumptionError: weights that are not finite.
    """
    form.check_width(down.shape[0], what)
    weight = down.t()
    run = _native(weight)
    if run is None:
        return definition.quantise_columns(down, form, what=what)
    rows, width = weight.shape
    shape = (rows,) if form.bits == 8 else (rows, width // form.group)
    data, scale = _empty(rows, width, shape, form, torch.int8)
    _run(run, weight, data, scale, form, by_neuron=True, what=what)
    return Columns(format=form, bytes=data, scale=scale)


def _native(weight: Tensor) -> Any | None:
    """The kernel, where there is one for this matrix."""
    fits = weight.is_cpu and weight.dtype in DTYPES and 1 <= weight.shape[1] <= _WIDEST
    found = choose(plain="torch").operators if fits else None
    return None if found is None else found.quantise.default


def _empty(rows: int, padded: int, scales: tuple[int, ...], form: Format, eight: torch.dtype) -> tuple[Tensor, Tensor]:
    if form.bits == 8:
        return torch.empty(rows, padded, dtype=eight), torch.empty(scales)
    return torch.empty(rows, padded // 2, dtype=torch.uint8), torch.empty(scales, dtype=torch.bfloat16)


def _run(run: Any, weight: Tensor, data: Tensor, scale: Tensor, form: Format, *, by_neuron: bool, what: str) -> None:
    weight = weight.detach()
    if 1 not in weight.stride():
        weight = weight.contiguous()
    if run(weight, data, scale, form.bits, form.group, by_neuron, -1):
        raise AssumptionError(definition.NOT_FINITE.format(what))
