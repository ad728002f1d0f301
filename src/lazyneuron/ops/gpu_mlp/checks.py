"""What the operators make sure of before a kernel gets pointers."""

from __future__ import annotations

import torch
from torch import Tensor

from lazyneuron.core.errors import ImplUnavailable, ShapeError
from lazyneuron.ops.gpu_mlp.available import why_not
from lazyneuron.ops.gpu_mlp.layer import KEPT, Layer
from lazyneuron.ops.quantised.format import GROUPS, blocks
from lazyneuron.ops.sparse_mlp.packed import DTYPES


def check_input(x: Tensor, bits: int, group: int) -> None:
    """Raise ImplUnavailable or ShapeError unless kernels run on the device of x and know its dtype and the format."""
    reason = why_not(x.device)
    if reason is not None:
        raise ImplUnavailable(reason)
    if x.dtype not in DTYPES:
        raise ShapeError(f"The kernels take float32, bfloat16 and float16, got {x.dtype}.")
    if x.ndim == 0 or x.shape[-1] == 0:
        raise ShapeError(f"An input has an axis of features, at least one, got the shape {tuple(x.shape)}.")
    if bits not in (KEPT, 8, 4) or group not in GROUPS:
        raise ShapeError(f"Weights are kept (16) or have 8 or 4 bits in groups of {GROUPS}, got {bits} and {group}.")


def check_rows(layer: Layer, x: Tensor, bits: int, group: int) -> None:
    """Raise ShapeError unless this is a layer whose rows run along the features of x, in the format of these bits."""
    width = x.shape[-1]
    step = {KEPT: 1, 8: 64, 4: 128}[bits]
    padded = -(-width // step) * step
    rows = _lengths(layer)[0]
    _check(layer, x, (rows, padded // 2 if bits == 4 else padded), x.dtype if bits == KEPT else torch.uint8)
    _check_scale(layer, rows, bits, (rows, len(blocks(padded, group)), 16) if bits == 4 else (rows,))
    _check_bias(layer, x, rows)


def check_columns(layer: Layer, hidden: Tensor, neurons: int, bits: int, group: int) -> None:
    """Raise ShapeError unless this is ``down`` by neuron, of as many neurons, in the format of these bits."""
    stored = _lengths(layer)[1]
    dtype = {KEPT: hidden.dtype, 8: torch.int8, 4: torch.uint8}[bits]
    _check(layer, hidden, (neurons, stored), dtype)
    d_out = 2 * stored if bits == 4 else stored
    if bits == 4 and d_out % group:
        raise ShapeError(f"Groups of {group} do not divide {d_out} outputs; pass the group size of the format.")
    _check_scale(layer, neurons, bits, (neurons, d_out // group) if bits == 4 else (neurons,))
    _check_bias(layer, hidden, d_out)


def check_counts(counts: Tensor, x: Tensor) -> None:
    """Raise ShapeError unless this is what calls add to."""
    if counts.shape != (4,) or counts.dtype != torch.int64 or not counts.is_contiguous() or counts.device != x.device:
        raise ShapeError(f"Counts are 4 contiguous int64 numbers on {x.device}, got {_said(counts)}.")


def _lengths(layer: Layer) -> torch.Size:
    if layer.rows.ndim != 2:
        raise ShapeError(f"Rows of weights are a matrix, got {_said(layer.rows)}.")
    return layer.rows.shape


def _check(layer: Layer, x: Tensor, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    rows = layer.rows
    side_by_side = shape[1] <= 1 or rows.stride(-1) == 1  # what strides say of a single number means nothing
    if rows.shape != shape or rows.dtype != dtype or not side_by_side or rows.device != x.device:
        raise ShapeError(f"Rows of weights are {dtype} of shape {shape} on {x.device}, got {_said(rows)}.")


def _check_scale(layer: Layer, rows: int, bits: int, shape: tuple[int, ...]) -> None:
    scale, dtype = layer.scale, torch.float32 if bits == 8 else torch.bfloat16
    if bits == KEPT:
        return
    if scale is None or scale.shape != shape or scale.dtype != dtype or scale.device != layer.rows.device:
        raise ShapeError(f"Scales are {dtype} of shape {shape}, got {'none' if scale is None else _said(scale)}.")
    if rows and not scale[0].is_contiguous():
        raise ShapeError("The scales of a row lie side by side; call .contiguous() on them.")


def _check_bias(layer: Layer, x: Tensor, size: int) -> None:
    bias = layer.bias
    if bias is None:
        return
    if bias.shape != (size,) or bias.dtype != x.dtype or not bias.is_contiguous() or bias.device != x.device:
        raise ShapeError(f"A bias is {size} contiguous numbers of {x.dtype} on {x.device}, got {_said(bias)}.")


def _said(t: Tensor) -> str:
    return f"{t.dtype} of shape {tuple(t.shape)} on {t.device}, strides {t.stride()}"
