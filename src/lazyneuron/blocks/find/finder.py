"""Find the MLP blocks of any model by what its modules compute, not by what they are called."""

from __future__ import annotations

import dataclasses
from typing import Any

from torch import nn

from lazyneuron.blocks.block import MLPBlock
from lazyneuron.blocks.borrowed import borrowed
from lazyneuron.blocks.find.linears import find_linears, is_sharded
from lazyneuron.blocks.find.norm import with_norms
from lazyneuron.blocks.find.rejected import Rejected, batched_experts, packed_linears
from lazyneuron.blocks.find.search import Search, never_ran
from lazyneuron.blocks.find.trace import Trace, trace_model
from lazyneuron.blocks.find.trial import survives
from lazyneuron.blocks.splice.rectify import is_rectified
from lazyneuron.blocks.splice.refusal import clashes, refuse
from lazyneuron.core.arguments import check_model
from lazyneuron.core.errors import NoBlocksError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Found:
    """What a search in a model gave.

    Attributes:
        blocks: the MLP blocks, in the order of the model's modules.
        rejected: what looks like a block and is none that can be worked with, with the reason of each.
    """

    blocks: tuple[MLPBlock, ...]
    rejected: tuple[Rejected, ...]

    def or_raise(self) -> Found:
        """This result, if it holds a block.

        Raises:
            NoBlocksError: it holds none; the sentence names what was rejected and why.
        """
        if self.blocks:
            return self
        if not self.rejected:
            raise NoBlocksError(
                "No MLP block was found in this model; a block is linear, activation, linear, optionally with a gate: "
                "pass a model that has one, or an example input if its parts cannot be run alone."
            )
        more = f" ({len(self.rejected) - 1} more like it)" if len(self.rejected) > 1 else ""
        raise NoBlocksError(f"No MLP block was found in this model{more}. {self.rejected[0]}")


def find_blocks(model: nn.Module, example: Any = None) -> list[MLPBlock]:
    """The MLP blocks of a model, in the order of its modules; see :func:`find`.

    Returns:
        The blocks, maybe none; those whose execution cannot be replaced carry the reason in ``refusal``.

    Example:
        >>> mlp = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 4))
        >>> find_blocks(mlp)[0].activation.kind
        'relu'
    """
    return list(find(model, example).blocks)


def find(model: nn.Module, example: Any = None, *, norms: bool = True) -> Found:
    """Find the MLP blocks of a model, and what looks like one but is not.

    Small random inputs run through sub-modules, from the innermost outwards, while their linear layers are watched.
    Where the input of one layer could be an element-wise function of another's output (or, gated, that function of one
    output times a second), the run is repeated with chosen values in place of those outputs: the candidate is accepted
    when exactly such a function of them arrives. A block that no single module stands for is moreover spliced on trial.

    Args:
        model: any module. Parameters, buffers, attributes, mode, hooks and torch's random state stay as they are, also
            after an exception; hooks of others are not called.
        example: one batch item; with it the whole model runs too, for parts that cannot be run alone.
        norms: look for the norm that feeds each block too; without it ``norm`` may be None where there is one.

    Returns:
        The blocks and the rejected candidates.

    Raises:
        ConfigError: ``model`` is no module.
        DataError: ``example`` is no batch.

    Cost:
        About three forwards of four tokens through each layer, and to find norms one through what is around a block or,
        where that cannot be run alone, through the model if it offers an input (``dummy_inputs``); no copy of a weight.
    """
    check_model(model)
    with borrowed(model, bare=True):
        sites = find_linears(model)
        search = Search(model, sites)
        search.trace_all()
        if example is not None and not any(is_sharded(site) for site in sites.values()):
            search.examine(trace_model(model, example, search.runnable))
        rejected = [*batched_experts(model), *packed_linears(model), *never_ran(search)]
        found = search.named()
        blocks = [block for block, _ in found]
        if norms:
            blocks = with_norms(model, blocks, sites=sites, traces=search.traces)
    hooked = {id(b.up.module) for b in blocks if b.gate is not None and is_rectified(b.up)}
    blocks = [dataclasses.replace(b, rectifies_up=b.rectifies_up or id(b.up.module) in hooked) for b in blocks]
    blocks = [dataclasses.replace(b, refusal=refuse(b, model, sites)) for b in blocks]
    blocks = [dataclasses.replace(b, refusal=b.refusal or clashes(b, blocks, model)) for b in blocks]
    with borrowed(model, bare=True):
        tried = [_tried(block, trace, model) for block, (_, trace) in zip(blocks, found, strict=True)]
    order = {name: k for k, name in enumerate(sites)}
    tried.sort(key=lambda block: order[block.up.name])
    return Found(blocks=tuple(tried), rejected=(*search.rejected, *rejected))


def _tried(block: MLPBlock, trace: Trace, model: nn.Module) -> MLPBlock:
    if block.refusal is not None or block.container is not None or survives(block, trace, model):
        return block
    reason = "Replacing its execution would change what the model computes around it."
    return dataclasses.replace(block, refusal=reason)
