"""The norm that feeds each block: the module with a vector weight that makes its input."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence

from torch import nn

from lazyneuron.blocks.block import LinearSite, MLPBlock
from lazyneuron.blocks.find.dataflow import same
from lazyneuron.blocks.find.trace import Trace, trace_locally, trace_model


def norm_in(trace: Trace, block: MLPBlock, model: nn.Module) -> str | None:
    """The norm that made the block's input in this trace."""
    if block.up.name not in trace.linears:
        return None
    x = trace.linears[block.up.name].input
    for call in trace.calls:
        if call.attribute is None and same(call.output, x):
            weight = model.get_submodule(call.name)._parameters.get("weight")
            if weight is not None and weight.ndim == 1:
                return call.name
    return None


def with_norms(
    model: nn.Module,
    blocks: Sequence[MLPBlock],
    *,
    sites: Mapping[str, LinearSite],
    traces: Mapping[tuple[str, int], Trace | None],
) -> list[MLPBlock]:
    """The blocks with ``norm`` filled in where a module around the block, run on random tokens, shows one.

    Layers that cannot be run alone, such as those that are handed rotary embeddings, are looked at in a forward of the
    whole model, if the model offers an input for that (``dummy_inputs``, as transformers' models do).

    Args:
        model: the model, borrowed bare.
        blocks: what was found in it.
        sites: its linear layers by name.
        traces: those that were made already, by name of the module and width of the tokens.
    """
    known = dict(traces)
    run: list[Trace | None] = []  # the whole model runs once for all blocks

    def whole() -> Trace | None:
        if not run:
            run.append(_whole(model, sites))
        return run[0]

    def look_around(block: MLPBlock) -> str | None:
        around = traces_around(model, block, sites=sites, known=known, whole=whole)
        return block.norm or next((norm for trace in around if (norm := norm_in(trace, block, model))), None)

    return [dataclasses.replace(block, norm=look_around(block)) for block in blocks]


def traces_around(
    model: nn.Module,
    block: MLPBlock,
    *,
    sites: Mapping[str, LinearSite],
    known: dict[tuple[str, int], Trace | None],
    whole: Callable[[], Trace | None] | None = None,
) -> Iterator[Trace]:
    """Traces of the modules around a block, from the innermost outwards, and at last of the whole model.

    Args:
        model: the model, borrowed bare.
        block: the block.
        sites: the model's linear layers by name.
        known: traces that were made already, by name of the module and width of the tokens; grows.
        whole: makes the trace of the whole model on an input that it offers; None for the one made here.
    """
    name = block.up.name
    while name:
        name = name.rpartition(".")[0]
        key = name, block.d_in
        if key not in known:
            inside = {n: s for n, s in sites.items() if n.startswith(name + "." if name else "")}
            known[key] = trace_locally(name, model.get_submodule(name), inside, width=block.d_in)
        trace = known[key]
        if trace is not None:
            yield trace
    last = _whole(model, sites) if whole is None else whole()
    if last is not None:
        yield last


def _whole(model: nn.Module, sites: Mapping[str, LinearSite]) -> Trace | None:
    """The model run on the input that it offers by itself, if it offers one and runs."""
    try:
        example = getattr(model, "dummy_inputs", None)
        return trace_model(model, example, sites) if isinstance(example, Mapping) else None
    except Exception:  # whatever a model raises on an input of its own making
        return None
