"""The norm that feeds each block, looked for in the modules around it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from torch import nn

from lazyneuron.blocks.block import MLPBlock
from lazyneuron.blocks.dataflow import same
from lazyneuron.blocks.linears import find_linears
from lazyneuron.blocks.quiet import quiet
from lazyneuron.blocks.trace import Trace, trace_locally


def with_norms(model: nn.Module, blocks: Sequence[MLPBlock]) -> list[MLPBlock]:
    """The blocks with ``norm`` filled in where a module around the block, run on random tokens, shows one.

    Args:
        model: the model that they were found in; it stays as it is.
        blocks: what ``find_blocks`` gave.

    Returns:
        The blocks in the same order; ``norm`` stays None where none was found.

    Cost: a forward of four tokens through the modules around each block.
    """
    with quiet(model):
        sites = find_linears(model)
        found = []
        for block in blocks:
            name, norm = block.up.name, block.norm
            while norm is None and name:
                name = name.rpartition(".")[0]
                around = model.get_submodule(name)
                inside = {n: s for n, s in sites.items() if n.startswith(name + "." if name else "")}
                trace = trace_locally(name, around, inside, width=block.d_in)
                norm = None if trace is None else _norm_in(trace, block, model)
            found.append(dataclasses.replace(block, norm=norm))
    return found


def _norm_in(trace: Trace, block: MLPBlock, model: nn.Module) -> str | None:
    """The module with a vector weight that made the block's input in this trace."""
    if block.up.name not in trace.linears:
        return None
    x = trace.linears[block.up.name].input
    for call in trace.calls:
        if call.attribute is None and same(call.output, x):
            weight = model.get_submodule(call.name)._parameters.get("weight")
            if weight is not None and weight.ndim == 1:
                return call.name
    return None
