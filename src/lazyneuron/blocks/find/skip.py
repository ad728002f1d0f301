"""The skip connection around a block: what it carries past the block, and where both are added."""

from __future__ import annotations

import dataclasses
from typing import Literal

import torch
from torch import Tensor, nn

from lazyneuron.blocks.block import MLPBlock
from lazyneuron.blocks.borrowed import borrowed
from lazyneuron.blocks.find.dataflow import same
from lazyneuron.blocks.find.linears import find_linears
from lazyneuron.blocks.find.norm import traces_around
from lazyneuron.blocks.find.trace import Call, Trace


@dataclasses.dataclass(frozen=True)
class Skip:
    """A skip connection around a block with a norm in front of it.

    Attributes:
        carries: which side of that norm it carries: its input (pre-norm) or its output (post-norm).
        place: dotted name of the module that shows the sum of what is carried and what the block returns.
        side: as its output, or as its input (post-norm: the next norm's, which nothing else reads).
    """

    carries: Literal["input", "output"]
    place: str
    side: Literal["input", "output"]


def find_skip(model: nn.Module, block: MLPBlock) -> Skip | None:
    """The skip connection around a block, or None when no module returns its sum and no norm is given it.

    The parts around the block run on random tokens with other numbers in place of what ``down`` returns; the skip
    connection is where exactly what the norm read, or made, plus what the block returned arrives.

    Cost: at most two forwards of each part around the block, and of the model where none of them can be run alone.
    """
    if block.norm is None:
        return None
    with borrowed(model, bare=True):
        for trace in traces_around(model, block, sites=find_linears(model), known={}):
            found = _skip_in(trace.again({block.down.name: _other}), block, model)
            if found is not None:
                return found
    return None


def _other(y: Tensor) -> Tensor:
    generator = torch.Generator().manual_seed(11)
    return torch.randn(y.shape, generator=generator, device="cpu").to(y.device, y.dtype)


def _skip_in(trace: Trace, block: MLPBlock, model: nn.Module) -> Skip | None:
    norm = next((call for call in trace.calls if call.attribute is None and call.name == block.norm), None)
    returned = _returned(trace, block)
    if norm is None or returned is None or norm.input.shape != returned.shape:
        return None
    modules = [call for call in trace.calls if call.attribute is None]
    for carries, carried in (("input", norm.input), ("output", norm.output)):
        for call in modules:
            if same(call.output, carried + returned):
                return Skip(carries, call.name, "output")  # type: ignore[arg-type]
    for call in modules:
        if _is_norm(model.get_submodule(call.name)) and same(call.input, norm.output + returned):
            return Skip("output", call.name, "input")
    return None


def _returned(trace: Trace, block: MLPBlock) -> Tensor | None:
    if block.container is None:
        found: Call | None = trace.linears.get(block.down.name)
    else:
        found = next((c for c in trace.calls if c.attribute is None and c.name == block.container), None)
    return None if found is None else found.output


def _is_norm(module: nn.Module) -> bool:
    weight = module._parameters.get("weight")
    return weight is not None and weight.ndim == 1
