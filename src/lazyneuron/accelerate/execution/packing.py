"""A block's weights laid out for certified execution."""

from __future__ import annotations

import torch
from torch import Tensor

from lazyneuron.accelerate.machine import products
from lazyneuron.accelerate.slack.certificate import build_sketch, inner_zero_set
from lazyneuron.blocks.block import MLPBlock
from lazyneuron.core.errors import AssumptionError, ShapeError
from lazyneuron.core.memory import advise_large_pages
from lazyneuron.ops.sparse_mlp.packed import DTYPES, MAX_D_IN, PackedBlock


def pack(block: MLPBlock) -> PackedBlock:
    """Lay out a block's weights; the model's parameters are only read.

    Args:
        block: a found block.

    Returns:
        The packed block. It shares the memory of ``up`` (and ``gate``) where they are already contiguous rows; ``down``
        is copied by neuron.

    Raises:
        ShapeError: dtype, device or width that the kernels do not take.
        AssumptionError: weights that are not finite, or dense products that round more than float32.

    Cost:
        One pass over the weights; adds d_hidden * (d_in + d_out * itemsize) bytes.
    """
    _check(block)
    first_rows = _rows(block.first.weight)
    first_bias = _vector(block.first.bias)
    down = block.down.weight.detach()
    for site, weight in ((block.down, down), (block.up, block.up.weight), (block.up, block.up.bias)):
        if weight is not None and not bool(torch.isfinite(weight).all()):
            raise AssumptionError(f"The weights of {site.name} hold NaN or infinity; a skipped row could hide them.")
    up_rows, up_bias = (_rows(block.up.weight), _vector(block.up.bias)) if block.gate is not None else (None, None)
    up = None if up_rows is None else (up_rows, up_bias)
    sketch = build_sketch(first_rows, first_bias, activation=block.activation, up=up)
    down_rows = down.t().contiguous()
    own = {block.first.weight.data_ptr(), block.up.weight.data_ptr(), block.down.weight.data_ptr()}
    copies = [t for t in (first_rows, up_rows, down_rows) if t is not None and t.data_ptr() not in own]
    for tensor in (sketch.panels, first_rows, down_rows, *([up_rows] if up_rows is not None else [])):
        advise_large_pages(tensor)
    return PackedBlock(
        sketch=sketch,
        first_rows=first_rows,
        first_bias=first_bias,
        up_rows=up_rows,
        up_bias=up_bias,
        rectifies_up=block.rectifies_up,
        down_rows=down_rows,
        down_bias=_vector(block.down.bias),
        activation=block.activation,
        zero=inner_zero_set(block.activation, first_rows.dtype),
        added_bytes=sketch.bytes + sum(t.numel() * t.element_size() for t in copies),
    )


def _check(block: MLPBlock) -> None:
    weights = [site.weight for site in (block.up, block.gate, block.down) if site is not None]
    dtypes, devices = {w.dtype for w in weights}, {w.device.type for w in weights}
    if len(dtypes) > 1 or next(iter(dtypes)) not in DTYPES:
        raise ShapeError(
            f"Weights must share one of float32, bfloat16, float16; {block.name} has {sorted(map(str, dtypes))}."
        )
    if torch.float32 in dtypes and products.are_narrow():
        raise AssumptionError(
            f"torch's float32 products round to {products.allowed()} here, which no certificate covers; "
            "call torch.set_float32_matmul_precision('highest') first."
        )
    if devices != {"cpu"}:
        raise ShapeError(f"There is a kernel for CPU weights only; {block.name} is on {sorted(devices)}.")
    if block.d_in > MAX_D_IN:
        raise ShapeError(f"The kernels take inputs of at most {MAX_D_IN} features; {block.name} has {block.d_in}.")


def _rows(weight: Tensor) -> Tensor:
    return weight.detach().contiguous()


def _vector(bias: Tensor | None) -> Tensor | None:
    return None if bias is None else bias.detach().contiguous()
