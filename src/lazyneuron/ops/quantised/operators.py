"""Quantised layers and blocks by their native operators; each has a fake implementation for compilers."""

from __future__ import annotations

import functools
from typing import Any, Protocol

from torch import Tensor

from lazyneuron.ops.choice import with_fakes
from lazyneuron.ops.quantised.format import Columns, Rows
from lazyneuron.ops.sparse_mlp.packed import KERNEL_ACTIVATIONS


class Function(Protocol):
    """An activation function, known by kind and parameters."""

    @property
    def kind(self) -> str:
        """One of :data:`KERNEL_ACTIVATIONS`."""

    @property
    def parameters(self) -> tuple[float, ...]:
        """The kind's numbers."""


@functools.cache
def operators() -> Any:
    """The native operators.

    Raises:
        ImplUnavailable: the kernels are not built here, with the reason.
    """
    return with_fakes({"quantised_linear": _fake_linear, "quantised_down": _fake_down, "quantised_mlp": _fake_mlp})


def _fake_linear(x: Tensor, rows: Tensor, *rest: Any) -> Tensor:
    return x.new_empty((*x.shape[:-1], rows.shape[0]))


def _width(rows: Tensor, bits: int) -> int:
    return rows.shape[1] if bits == 8 else 2 * rows.shape[1]


def _fake_down(x: Tensor, rows: Tensor, scale: Tensor, bias: Tensor | None, bits: int, *rest: Any) -> Tensor:
    return x.new_empty((*x.shape[:-1], _width(rows, bits)))


def _fake_mlp(x: Tensor, *rest: Any) -> Tensor:
    down, bits = rest[7], rest[11]
    return x.new_empty((*x.shape[:-1], _width(down, bits)))


def linear(x: Tensor, rows: Rows, bias: Tensor | None = None, *, isa: int = -1) -> Tensor:
    """``x W' + b`` with W quantised and x on a grid of 16 bits a token.

    Args:
        x: (..., width) on the CPU, float32, bfloat16 or float16.
        rows: the weights.
        bias: (rows,) in the dtype of x.
        isa: level of the kernels, -1 for the best.

    Returns:
        (..., rows) in the dtype of x. A token's numbers do not depend on the tokens beside it.

    Raises:
        ImplUnavailable: the kernels are not built here.
        RuntimeError: shapes or dtypes that do not fit.

    Cost:
        Bytes for few tokens: those of the rows.
    """
    form = rows.format
    y: Tensor = operators().quantised_linear(x, rows.bytes, rows.scale, bias, form.bits, form.group, isa)
    return y


def down(hidden: Tensor, columns: Columns, bias: Tensor | None = None, *, isa: int = -1) -> Tensor:
    """The second layer of a block: rows of neurons whose hidden activation is zero for all tokens are not read.

    Args:
        hidden: (..., d_hidden) on the CPU, float32, bfloat16 or float16.
        columns: the weights by neuron.
        bias: (d_out,) in the dtype of ``hidden``.
        isa: level of the kernels, -1 for the best.

    Returns:
        (..., d_out) in the dtype of ``hidden``.

    Raises:
        ImplUnavailable: the kernels are not built here.
        RuntimeError: shapes or dtypes that do not fit.
    """
    form = columns.format
    y: Tensor = operators().quantised_down(hidden, columns.bytes, columns.scale, bias, form.bits, form.group, isa)
    return y


def block_arguments(
    first: tuple[Rows, Tensor | None],
    second: tuple[Columns, Tensor | None],
    *,
    activation: Function,
    counts: Tensor,
    up: tuple[Rows, Tensor | None] | None = None,
    rectify_up: bool = False,
    every: bool = False,
    isa: int = -1,
) -> tuple[object, ...]:
    """Everything that ``quantised_mlp`` takes after ``x``, made once for a block.

    Args:
        first: rows and bias of ``up``, or of the gate of a gated block.
        second: ``down`` by neuron, and its bias.
        activation: between them.
        counts: int64 (4,) that calls add to: pairs computed, pairs fired, tokens, calls.
        up: rows and bias of the second factor of a gated block.
        rectify_up: whether that factor is rectified too (dReLU).
        every: read every neuron's rows, whatever fires: the dense evaluation, with the same bits.
        isa: level of the kernels, -1 for the best.
    """
    form = first[0].format
    mix, cap = (*activation.parameters, 0.0, 0.0)[:2]
    rows, row_bias = up if up is not None else (None, None)
    return (
        first[0].bytes,
        first[0].scale,
        first[1],
        rows.bytes if rows is not None else None,
        rows.scale if rows is not None else None,
        row_bias,
        rectify_up,
        second[0].bytes,
        second[0].scale,
        second[1],
        counts,
        form.bits,
        form.group,
        KERNEL_ACTIVATIONS.index(activation.kind),
        float(mix),
        float(cap),
        every,
        isa,
    )


def mlp(x: Tensor, *arguments: object) -> Tensor:
    """A sparse block on quantised weights.

    The products of the first layer are its values: they decide which rows of ``up`` and ``down`` are read.

    Args:
        x: (..., d_in) on the CPU, float32, bfloat16 or float16.
        arguments: from :func:`block_arguments`.

    Returns:
        (..., d_out) in the dtype of x: the dense evaluation of the same quantised weights, to the last bit.

    Raises:
        ImplUnavailable: the kernels are not built here.
        RuntimeError: shapes or dtypes that do not fit.

    Cost:
        Bytes for one token, b a weight: ``b d_hidden (d_in + a (d_in + d_out))`` of a gated block at density a.
    """
    y: Tensor = operators().quantised_mlp(x, *arguments)
    return y
