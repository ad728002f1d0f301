"""A block's weights as one array of bytes, which csrc/openvino/block.h reads, and the operator's attributes."""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lazyneuron.accelerate.execution.packing import pack
from lazyneuron.accelerate.slack.certificate import inner_zero_set
from lazyneuron.blocks import LinearSite, MLPBlock
from lazyneuron.core.errors import ConfigError
from lazyneuron.ops.quantised.format import Format, Rows
from lazyneuron.ops.quantised.quantise import quantise_columns, quantise_rows
from lazyneuron.ops.sparse_mlp.sketch import PANEL

FORMAT = 2  # of the bytes, as in csrc/openvino/block.h
_MAGIC = b"lazy-mlp"
_SECTIONS = (
    "sketch", "certificate", "first", "first_scale", "first_bias", "up", "up_scale", "up_bias",
    "down", "down_scale", "down_bias", "norm_weight", "norm_bias",
)  # fmt: skip
_HEADER = struct.Struct(f"<8sq6f{len(_SECTIONS)}q")
_ALIGNMENT = 64


@dataclasses.dataclass(frozen=True, kw_only=True)
class PackedOperator:
    """A block as the operator of another engine takes it.

    Attributes:
        attributes: what the operator says of the block: its shape, activation and format.
        weights: uint8, everything it reads, the proof's numbers included.
    """

    attributes: Mapping[str, Any]
    weights: np.ndarray


def packed_operator(block: MLPBlock, weights: str) -> PackedOperator:
    """Lay a block out for the operator.

    Args:
        block: a plain or gated block whose activation the kernels know.
        weights: ``"keep"``, ``"bf16"`` (rounded to it first) or ``"int8"`` (quantised, one scale a row).

    Raises:
        ShapeError: a width that the kernels do not take.
        AssumptionError: weights that are not finite.
        ConfigError: another name of a format.
    """
    if weights not in ("keep", "bf16", "int8"):
        raise ConfigError(f"weights is 'keep', 'bf16' or 'int8', got {weights!r}.")
    parts, numbers, stored = _quantised(block) if weights == "int8" else _certified(block, weights)
    attributes = {
        "format": FORMAT,
        "weights": stored,
        "activation": block.activation.kind,
        "d_in": block.d_in,
        "d_hidden": block.d_hidden,
        "d_out": block.d_out,
        "gated": block.gate is not None,
        "rectify_up": block.rectifies_up,
        "planes": 0,
        "adds_input": False,
        "normalises": False,
    }
    return sealed(attributes, _joined(parts, numbers))


def sealed(attributes: Mapping[str, Any], weights: np.ndarray) -> PackedOperator:
    """An operator whose attributes hold the checksum of its weights: words of 8 bytes, each times an odd number."""
    words = weights.view("<u8")
    total = int((words * (2 * np.arange(words.size, dtype=np.uint64) + 1)).sum(dtype=np.uint64))
    return PackedOperator(attributes={**attributes, "checksum": f"{total:016x}"}, weights=weights)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Norm:
    """A layer norm over the features of a block's output.

    Attributes:
        weight: (d_out) float32, what a row is multiplied by.
        bias: (d_out) float32, what is added then.
        epsilon: what is added to the variance.
    """

    weight: np.ndarray
    bias: np.ndarray
    epsilon: float


def with_input_added(packed: PackedOperator, norm: Norm | None) -> PackedOperator:
    """The operator that adds the block's input to its output and, where one follows, applies the norm to the sum."""
    attributes = {**packed.attributes, "adds_input": True, "normalises": norm is not None}
    if norm is None:
        return sealed(attributes, packed.weights)
    at, added = packed.weights.size, _padded(norm.weight.size * 4)
    whole = np.zeros(at + 2 * added, dtype=np.uint8)
    whole[:at] = packed.weights
    for start, values in ((at, norm.weight), (at + added, norm.bias)):
        content = np.ascontiguousarray(values, dtype=np.float32).reshape(-1).view(np.uint8)
        whole[start : start + content.size] = content
    magic, _, *rest = _HEADER.unpack(packed.weights[: _HEADER.size].tobytes())
    numbers, offsets = rest[:5], rest[6:-2]
    header = _HEADER.pack(magic, whole.size, *numbers, norm.epsilon, *offsets, at, at + added)
    whole[: _HEADER.size] = np.frombuffer(header, dtype=np.uint8)
    return sealed(attributes, whole)


def _certified(block: MLPBlock, weights: str) -> tuple[dict[str, Tensor | None], tuple[float, ...], str]:
    packed = pack(on_copies(block, torch.bfloat16) if weights == "bf16" else block)
    zero, act = packed.zero, packed.compared
    parts = {
        "sketch": packed.sketch.panels,
        "certificate": packed.sketch.certificate,
        "first": packed.first_rows,
        "up": packed.up_rows,
        "up_bias": packed.up_bias,
        "down": packed.down_rows,
        "down_bias": packed.down_bias,
    }
    first, second = (*act.parameters, 0.0, 0.0)[:2]
    return parts, (first, second, zero.left, zero.low, zero.high), str(packed.dtype).removeprefix("torch.")


def _quantised(block: MLPBlock) -> tuple[dict[str, Tensor | None], tuple[float, ...], str]:
    form = Format(bits=8)
    first = quantise_rows(block.first.weight, form, what=block.first.name)
    down = quantise_columns(block.down.weight, form, what=block.down.name)
    parts: dict[str, Tensor | None] = {"down_scale": down.scale, "down_bias": _float(block.down.bias)}
    act, zero = block.activation.compared(torch.float32), inner_zero_set(block.activation, torch.float32)
    mix, cap = (*act.parameters, 0.0, 0.0)[:2]
    numbers = (mix, cap, zero.left, zero.low, zero.high)
    if block.gate is None:
        rows = torch.nn.functional.pad((down.bytes.to(torch.int16) + 128).to(torch.uint8), (0, -block.d_out % PANEL))
        return parts | {"down": rows} | _in_panels(first, block.first.bias), numbers, "int8"
    up = quantise_rows(block.up.weight, form, what=block.up.name)
    parts |= {
        "down": down.bytes,
        "first": first.bytes,
        "first_scale": first.scale,
        "first_bias": _float(block.first.bias),
    }
    return parts | {"up": up.bytes, "up_scale": up.scale, "up_bias": _float(block.up.bias)}, numbers, "int8"


def _in_panels(rows: Rows, bias: Tensor | None) -> dict[str, Tensor | None]:
    """Rows, scales and biases of 64 neurons together, four weights of each side by side; padding is zero."""
    hidden, missing = len(rows.bytes), -len(rows.bytes) % PANEL
    quads = -(-rows.width // 4)
    bytes_ = torch.nn.functional.pad(rows.bytes[:, : 4 * quads], (0, 0, 0, missing), value=128)
    offset = torch.zeros(hidden) if bias is None else bias.detach().float()
    return {
        "sketch": bytes_.view(-1, PANEL, quads, 4).permute(0, 2, 1, 3),
        "first_scale": torch.nn.functional.pad(rows.scale, (0, missing)),
        "first_bias": torch.nn.functional.pad(offset, (0, missing)),
    }


def _float(bias: Tensor | None) -> Tensor | None:
    return None if bias is None else bias.detach().float()


def on_copies(block: MLPBlock, dtype: torch.dtype) -> MLPBlock:
    """The same block on copies of its layers in another dtype."""

    def copied(site: LinearSite) -> LinearSite:
        layer = torch.nn.Module()
        for name in ("weight", "bias"):
            value = getattr(site, name)
            frozen = None if value is None else torch.nn.Parameter(value.detach().to(dtype), requires_grad=False)
            layer.register_parameter(name, frozen)
        return dataclasses.replace(site, module=layer, transposed=False, rows=None)

    gate = None if block.gate is None else copied(block.gate)
    return dataclasses.replace(block, up=copied(block.up), down=copied(block.down), gate=gate)


def _joined(parts: Mapping[str, Tensor | None], numbers: tuple[float, ...]) -> np.ndarray:
    offsets, pieces, at = [], [], _padded(_HEADER.size)
    for name in _SECTIONS:
        tensor = parts.get(name)
        if tensor is None:
            offsets.append(0)
            continue
        content = tensor.detach().contiguous().flatten().view(torch.uint8).numpy()
        offsets.append(at)
        pieces.append((at, content))
        at += _padded(content.size)
    whole = np.zeros(at, dtype=np.uint8)
    whole[: _HEADER.size] = np.frombuffer(_HEADER.pack(_MAGIC, at, *numbers, 0.0, *offsets), dtype=np.uint8)
    for start, content in pieces:
        whole[start : start + content.size] = content
    return whole


def _padded(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT
