"""The operators of the Triton kernels, for torch's registry; each has a fake implementation for compilers."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from lazyneuron.core.errors import ShapeError
from lazyneuron.ops.gpu_mlp.checks import check_columns, check_counts, check_input, check_rows
from lazyneuron.ops.gpu_mlp.layer import KEPT, Layer, units
from lazyneuron.ops.gpu_mlp.tiles import FEW, Tiles, tiles_for
from lazyneuron.ops.quantised.format import Format
from lazyneuron.ops.sparse_mlp.packed import KERNEL_ACTIVATIONS, Function

_NO_ACTIVATION = -1
_TICKETS = 128  # cleared at once


def new_counts(device: torch.device) -> Tensor:
    """Four zeros that calls add to: neurons that fired for some token of a tile, pairs fired, tokens, calls."""
    return torch.zeros(4, dtype=torch.int64, device=device)


@functools.cache
def op(name: str) -> Callable[..., Tensor]:
    """The operator ``lazyneuron::gpu_<name>``, registered on first use; ``name`` is ``mlp``, ``linear`` or ``down``."""
    function, fake, mutated = _OPERATORS[name]
    made = torch.library.custom_op(f"lazyneuron::gpu_{name}", function, mutates_args=mutated)
    made.register_fake(fake)
    call: Callable[..., Tensor] = getattr(torch.ops.lazyneuron, f"gpu_{name}").default
    return call


def block_arguments(
    first: Layer,
    second: Layer,
    *,
    activation: Function,
    counts: Tensor,
    up: Layer | None = None,
    rectify_up: bool = False,
    form: Format | None = None,
    limit: float = float("inf"),
    tiles: Tiles | None = None,
) -> tuple[object, ...]:
    """Everything that ``gpu_mlp`` takes after ``x``, made once for a block.

    Args:
        first: ``up``, or the gate of a gated block.
        second: ``down`` by neuron.
        activation: between them, thresholds as torch compares them in the dtype of x.
        counts: from :func:`new_counts`.
        up: the second factor of a gated block.
        rectify_up: whether that factor is rectified too (dReLU).
        form: of quantised rows; None for weights in the dtype of x.
        limit: squared norm of a token up to which no product of ``up`` overflows.
        tiles: how the work is cut; None for :func:`tiles_for`.
    """
    a, b = (*activation.parameters, 0.0, 0.0)[:2]
    return (
        *_parts(first),
        *(_parts(up) if up is not None else (None, None, None)),
        rectify_up,
        *_parts(second),
        counts,
        KEPT if form is None else form.bits,
        32 if form is None else form.group,
        KERNEL_ACTIVATIONS.index(activation.kind),
        float(a),
        float(b),
        limit,
        [] if tiles is None else tiles.numbers(),
    )


def _parts(layer: Layer) -> tuple[Tensor, Tensor | None, Tensor | None]:
    return layer.rows, layer.scale, layer.bias


def mlp(
    x: Tensor,
    first: Tensor,
    first_scale: Tensor | None,
    first_bias: Tensor | None,
    up: Tensor | None,
    up_scale: Tensor | None,
    up_bias: Tensor | None,
    rectify_up: bool,
    second: Tensor,
    second_scale: Tensor | None,
    second_bias: Tensor | None,
    counts: Tensor,
    bits: int,
    group: int,
    kind: int,
    a: float,
    b: float,
    limit: float,
    tiles: list[int],
) -> Tensor:
    """``down(s(up x))`` or ``down(s(gate x) * up x)``; rows of neurons that fire for no token of a tile are skipped.

    Args:
        x: (..., d_in); the others as :func:`block_arguments` makes them.

    Returns:
        (..., d_out) in the dtype of x. Nothing is handed to the host: the call may be captured in a CUDA graph.

    Raises:
        ImplUnavailable: the kernels do not run on the device of x.
        ShapeError: dtypes, devices or shapes that do not fit.

    Cost:
        Bytes for one token, w a weight: ``w d_hidden (d_in + a (d_in + d_out))`` of a gated block at density a.
    """
    one = Layer(rows=first, scale=first_scale, bias=first_bias)
    other = None if up is None else Layer(rows=up, scale=up_scale, bias=up_bias)
    last = Layer(rows=second, scale=second_scale, bias=second_bias)
    check_input(x, bits, group)
    for layer in (one, other):
        if layer is not None:
            check_rows(layer, x, bits, group)
    check_columns(last, x, first.shape[0], bits, group)
    check_counts(counts, x)
    if other is not None and len(other.rows) != len(first):
        raise ShapeError(f"Gate and up have as many neurons, got {len(first)} and {len(other.rows)}.")
    if not _NO_ACTIVATION < kind < len(KERNEL_ACTIVATIONS):
        raise ShapeError(f"Activations are numbered from 0 to {len(KERNEL_ACTIVATIONS) - 1}, got {kind}.")
    d_out = _width(second, bits)
    flat = x.reshape(-1, x.shape[-1])
    y = x.new_empty((len(flat), d_out))
    if y.numel():
        cut = _cut(tiles, len(flat), first.shape[0], d_out, bits, x.device)
        h, tickets = _first(flat, one, other, rectify_up, counts, bits, group, (kind, a, b, limit), cut, d_out)
        _down(h, last, y, tickets, bits, group, cut)
    return y.reshape(*x.shape[:-1], d_out)


def linear(x: Tensor, rows: Tensor, scale: Tensor | None, bias: Tensor | None, bits: int, group: int) -> Tensor:
    """``x W' + b`` of quantised (or kept) rows, (..., d_in) to (..., rows); errors as of :func:`mlp`."""
    layer = Layer(rows=rows, scale=scale, bias=bias)
    check_input(x, bits, group)
    check_rows(layer, x, bits, group)
    flat = x.reshape(-1, x.shape[-1])
    if not len(flat) or not len(rows):
        return x.new_empty((*x.shape[:-1], rows.shape[0]))
    cut = _cut([], len(flat), rows.shape[0], rows.shape[0], bits, x.device)
    y, _ = _first(flat, layer, None, False, None, bits, group, (_NO_ACTIVATION, 0.0, 0.0, 0.0), cut, 0)
    return y.reshape(*x.shape[:-1], rows.shape[0])


def down(hidden: Tensor, rows: Tensor, scale: Tensor | None, bias: Tensor | None, bits: int, group: int) -> Tensor:
    """The second layer by neuron, (..., d_hidden) to (..., d_out), without the rows of silent neurons; errors alike."""
    layer = Layer(rows=rows, scale=scale, bias=bias)
    check_input(hidden, bits, group)
    check_columns(layer, hidden, hidden.shape[-1], bits, group)
    d_out = _width(rows, bits)
    flat = hidden.reshape(-1, hidden.shape[-1]).contiguous()
    y = hidden.new_empty((len(flat), d_out))
    if y.numel():
        cut = _cut([], len(flat), rows.shape[0], d_out, bits, hidden.device)
        tickets = torch.zeros(_ticket_count(len(flat), cut, d_out), dtype=torch.int32, device=hidden.device)
        _down(flat, layer, y, tickets, bits, group, cut)
    return y.reshape(*hidden.shape[:-1], d_out)


def _first(
    x: Tensor,
    layer: Layer,
    up: Layer | None,
    rectify_up: bool,
    counts: Tensor | None,
    bits: int,
    group: int,
    function: tuple[int, float, float, float],
    cut: Tiles,
    d_out: int,
) -> tuple[Tensor, Tensor]:
    """Hidden activations (tokens, rows), and the tickets that `down` draws, cleared."""
    from lazyneuron.ops.gpu_mlp import kernels

    x = x if x.stride(-1) == 1 else x.contiguous()
    (tokens, width), hidden = x.shape, layer.rows.shape[0]
    tile = _tokens_a_tile(tokens)
    h = x.new_empty((tokens, hidden))
    tickets = torch.empty(_ticket_count(tokens, cut, d_out), dtype=torch.int32, device=x.device)
    padded = 2 * layer.rows.shape[1]
    table = units(padded, group, x.device) if bits == 4 else tickets
    other = layer if up is None else up
    kind, a, b, limit = function
    kernels.first[(-(-hidden // cut.neurons), -(-tokens // tile))](
        x, x.stride(0), *_pointers(layer, x), *_pointers(other, x), table, len(table), h,
        tickets if counts is None else counts, tickets, len(tickets) if d_out else 0, tokens, width, hidden,
        a, b, limit, BITS=bits, KIND=kind, GATED=up is not None, RECTIFY=rectify_up, HAS_BIAS=layer.bias is not None,
        HAS_UP_BIAS=other.bias is not None, COUNT=counts is not None, N=cut.neurons, K=cut.inputs, T=tile,
        TICKETS=_TICKETS if d_out else 0, num_warps=cut.warps,
    )  # fmt: skip
    return h, tickets


def _down(h: Tensor, layer: Layer, y: Tensor, tickets: Tensor, bits: int, group: int, cut: Tiles) -> None:
    from lazyneuron.ops.gpu_mlp import kernels

    (tokens, hidden), d_out = h.shape, y.shape[1]
    tile, length = _tokens_a_tile(tokens), cut.length(hidden)
    across, count, segments = -(-d_out // cut.columns), -(-tokens // tile), -(-hidden // length)
    partial = torch.empty(segments * tokens * d_out if segments > 1 else 1, dtype=torch.float32, device=h.device)
    found = torch.empty(across * count * segments * length, dtype=torch.int32, device=h.device)
    kernels.down[(across, segments, count)](
        h, *_pointers(layer, h), y, partial, found, tickets, tokens, hidden, d_out, BITS=bits, GROUP=group,
        HAS_BIAS=layer.bias is not None, SEGMENTS=segments, LENGTH=length, N=cut.columns, R=cut.rows, T=tile,
        num_warps=cut.warps,
    )  # fmt: skip


def _pointers(layer: Layer, x: Tensor) -> tuple[Any, ...]:
    scale = layer.scale if layer.scale is not None else x
    return layer.rows, layer.rows.stride(0), scale, scale.stride(0), layer.bias if layer.bias is not None else x


def _tokens_a_tile(tokens: int) -> int:
    return 1 if tokens == 1 else FEW


def _ticket_count(tokens: int, cut: Tiles, d_out: int) -> int:
    return max(1, -(-d_out // cut.columns) * -(-tokens // _tokens_a_tile(tokens)))


def _cut(tiles: list[int], tokens: int, hidden: int, d_out: int, bits: int, device: torch.device) -> Tiles:
    if tiles:
        return Tiles.of(tiles)
    return tiles_for(tokens=tokens, hidden=hidden, d_out=d_out, bits=bits, device=device)


def _width(rows: Tensor, bits: int) -> int:
    return int(rows.shape[1]) * (2 if bits == 4 else 1)


def _fake_mlp(x: Tensor, *rest: Any) -> Tensor:
    return x.new_empty((*x.shape[:-1], _width(rest[7], rest[11])))


def _fake_linear(x: Tensor, rows: Tensor, *rest: Any) -> Tensor:
    return x.new_empty((*x.shape[:-1], rows.shape[0]))


def _fake_down(hidden: Tensor, rows: Tensor, scale: Any, bias: Any, bits: int, group: int) -> Tensor:
    return hidden.new_empty((*hidden.shape[:-1], _width(rows, bits)))


_OPERATORS: dict[str, tuple[Callable[..., Tensor], Callable[..., Tensor], Any]] = {
    "mlp": (mlp, _fake_mlp, ("counts",)),
    "linear": (linear, _fake_linear, ()),
    "down": (down, _fake_down, ()),
}
