"""The norm that feeds each block, looked for in the modules around it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from torch import nn

from lazyneuron.blocks.block import LinearSite, MLPBlock
from lazyneuron.blocks.borrowed import borrowed
from lazyneuron.blocks.find.dataflow import same
from lazyneuron.blocks.find.linears import find_linears
from lazyneuron.blocks.find.trace import Trace, trace_locally, trace_model


def with_norms(model: nn.Module, blocks: Sequence[MLPBlock]) -> list[MLPBlock]:
    """The blocks with ``norm`` filled in where a module around the block, run on random tokens, shows one.

    Layers that cannot be run alone, such as those that are handed rotary embeddings, are looked at in a forward of the
    whole model, if the model offers an input for that (``dummy_inputs``, as transformers' models do).

    Args:
        model: the model that they were found in; it stays as it is.
        blocks: what ``find_blocks`` gave.

    Returns:
        The blocks in the same order; ``norm`` stays None where none was found.

    Cost: a forward of four tokens through the modules around each block, and maybe one of the model on a few tokens.
    """
    with borrowed(model, bare=True):
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
        if any(block.norm is None for block in found):
            whole = _whole(model, sites)
            for k, block in enumerate(found):
                if block.norm is None and whole is not None:
                    found[k] = dataclasses.replace(block, norm=_norm_in(whole, block, model))
    return found


def _whole(model: nn.Module, sites: Mapping[str, LinearSite]) -> Trace | None:
    """The model run on the input that it offers by itself, if it offers one and runs."""
    try:
        example = getattr(model, "dummy_inputs", None)
        return trace_model(model, example, sites) if isinstance(example, Mapping) else None
    except Exception:  # whatever a model raises on an input of its own making
        return None


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
