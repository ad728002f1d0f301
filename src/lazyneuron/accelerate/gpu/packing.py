"""A block's weights as the kernels of GPUs read them, and whether they are still those of the model."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from lazyneuron.accelerate.execution.freshness import steps_made, unwatchable
from lazyneuron.blocks.block import MLPBlock
from lazyneuron.core.errors import AssumptionError, ShapeError
from lazyneuron.ops.gpu_mlp.available import why_not
from lazyneuron.ops.gpu_mlp.layer import Layer
from lazyneuron.ops.sparse_mlp.packed import DTYPES

DEVICES = ("cuda", "cpu")  # of the kernels; the second for their interpreter
_LARGEST = 3e38  # of the limits that kernels take as float32


@dataclasses.dataclass(frozen=True, kw_only=True)
class Weights:
    """A block's layers, in its own memory but for ``down``.

    Attributes:
        first, up, down: as the operator takes them; ``up`` of a gated block only, ``down`` a copy by neuron.
        limit: squared norm of a token up to which no product of ``up`` overflows.
        added_bytes: memory held beside the model's own parameters.
    """

    first: Layer
    up: Layer | None
    down: Layer
    limit: float
    added_bytes: int

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights."""
        return self.first.rows.dtype


def why_not_here(block: MLPBlock) -> str | None:
    """Why the weights of a block cannot be executed by these kernels, as a sentence, or None."""
    devices = {str(t.device) for site in block.linears for t in (site.weight, site.bias) if t is not None}
    if len(devices) > 1:
        return f"Its weights are on several devices, {', '.join(sorted(devices))}; move the block to one of them."
    dtypes = {site.weight.dtype for site in block.linears}
    if len(dtypes) > 1 or next(iter(dtypes)) not in DTYPES:
        return f"Weights must share one of float32, bfloat16, float16; it has {', '.join(sorted(map(str, dtypes)))}."
    return why_not(block.up.weight.device) or unwatchable(block, devices=DEVICES)


@torch.no_grad()
def pack(block: MLPBlock) -> Weights:
    """Lay out a block's weights on their device; the model's parameters are only read.

    Raises:
        ShapeError: devices, dtypes or layouts that the kernels do not take.
        AssumptionError: weights that are not finite.

    Cost:
        Adds d_hidden * d_out * itemsize bytes, and waits for the device once.
    """
    reason = why_not_here(block)
    if reason is not None:
        raise ShapeError(reason)
    for site in block.linears:
        for tensor in (site.weight, site.bias):
            if tensor is not None and not bool(torch.isfinite(tensor).all()):
                raise AssumptionError(
                    f"The weights of {site.name} hold NaN or infinity; a skipped row could hide them."
                )
    first = _layer(block.first.weight, block.first.bias)
    up = None if block.gate is None else _layer(block.up.weight, block.up.bias)
    down = Layer(rows=block.down.weight.detach().t().contiguous(), bias=_vector(block.down.bias))
    own = {site.weight.data_ptr() for site in block.linears}
    copies = [layer.rows for layer in (first, up, down) if layer is not None and layer.rows.data_ptr() not in own]
    return Weights(
        first=first,
        up=up,
        down=down,
        limit=float("inf") if up is None else overflow_limit(up.rows, up.bias, first.rows.dtype),
        added_bytes=sum(t.numel() * t.element_size() for t in copies),
    )


def overflow_limit(up: Tensor, bias: Tensor | None, dtype: torch.dtype) -> float:
    """The squared norm of a token up to which ``|up x + bias| <= |up| |x| + |bias|`` is finite in ``dtype``.

    Args:
        up: (neurons, d_in) of any dtype.
        bias: (neurons,) or None.
        dtype: to which the product is rounded.
    """
    most = 0.99 * torch.finfo(dtype).max
    least = most if bias is None or not len(bias) else most - float(bias.detach().double().abs().max())
    norms = torch.stack([piece.double().norm(dim=1).amax() for piece in torch.split(up.detach(), 1024) if len(piece)])
    largest = float(norms.max()) if len(norms) else 0.0
    reach = max(least, 0.0) / largest if largest else _LARGEST
    return float(min(reach, _LARGEST**0.5) ** 2)


def _layer(weight: Tensor, bias: Tensor | None) -> Layer:
    weight = weight.detach()
    return Layer(rows=weight if weight.stride(1) == 1 else weight.contiguous(), bias=_vector(bias))


def _vector(bias: Tensor | None) -> Tensor | None:
    return None if bias is None else bias.detach().contiguous()


class Marks:
    """What tells that a block's weights changed, without reading them: make it *before* packing.

    Another parameter object, a raised version counter, another address, device, size or stride, and any step of a
    ``torch.optim`` optimiser. What writes without announcing it (through ``.data`` or a pointer) is not noticed on a
    GPU, since reading the weights back would have the host wait; ``refresh_`` compares them.

    Args:
        block: the block.
    """

    def __init__(self, block: MLPBlock) -> None:
        self._block = block
        self._steps = steps_made()
        self._held = self._now()

    def hold(self) -> bool:
        """Does nothing tell of a change?"""
        return steps_made() == self._steps and self._now() == self._held

    def _now(self) -> list[tuple[object, ...]]:
        modules = dict.fromkeys(site.module for site in self._block.linears)
        held = [module._parameters.get(name) for module in modules for name in ("weight", "bias")]
        return [(None,) if p is None else _mark(p) for p in held]


def _mark(p: Tensor) -> tuple[object, ...]:
    return (id(p), p._version, p.data_ptr(), p.device, p.dtype, tuple(p.shape), p.stride())
