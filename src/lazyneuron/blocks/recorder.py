"""Seeing the tensors of blocks while a model runs: the one place where hooks look at a block."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lazyneuron.blocks.block import LinearSite, MLPBlock
from lazyneuron.blocks.sharded import is_sharded, whole

Seen = Callable[[MLPBlock, Any], Any]


@contextlib.contextmanager
def recording(
    blocks: Sequence[MLPBlock],
    *,
    inputs: Seen | None = None,
    entering: Seen | None = None,
    pre_activations: Seen | None = None,
    factors: Seen | None = None,
    hidden: Seen | None = None,
    outputs: Seen | None = None,
    graph: bool = False,
) -> Iterator[None]:
    """Call functions with the tensors of blocks, in whatever forwards run meanwhile.

    Each is called with the block and what was seen: a tensor, or whatever stands where one was expected.

    Args:
        blocks: the blocks.
        inputs: what the layer receives that decides what fires, (..., d_in), once a call of the block. A tensor that is
            returned takes its place.
        entering: the same, for gate and up each where these are two layers.
        pre_activations: what that layer returns, (..., d_hidden).
        factors: what a gated block's ``s(gate)`` is multiplied by, (..., d_hidden).
        hidden: what ``down`` receives, (..., d_hidden).
        outputs: what ``down`` returns, (..., d_out).
        graph: hand tensors over with the graph that autograd is building, of a block that tensor parallelism has
            sharded this process's neurons; else detached and whole, and nothing that is computed of them enters it.
    """
    with contextlib.ExitStack() as stack:

        def before(block: MLPBlock, module: nn.Module, seen: Seen | None) -> None:
            if seen is not None:
                stack.callback(module.register_forward_pre_hook(_Before(block, seen, graph)).remove)

        def after(block: MLPBlock, site: LinearSite, seen: Seen | None) -> None:
            if seen is not None:
                stack.callback(site.module.register_forward_hook(_After(block, seen, graph, site)).remove)

        for block in blocks:
            before(block, block.first.module, inputs)
            for module in {block.first.module: None, block.up.module: None}:
                before(block, module, entering)
            after(block, block.first, pre_activations)
            if block.gate is not None:
                after(block, block.up, factors)
            before(block, block.down.module, hidden)
            after(block, block.down, outputs)
        yield


def real_tokens(value: Tensor, mask: Tensor | None) -> Tensor:
    """The rows of an activation (..., width) at real tokens, (tokens, width); all where the mask does not fit."""
    fitted = None if mask is None else fit_mask(mask, tuple(value.shape[:-1]))
    return value.reshape(-1, value.shape[-1]) if fitted is None else value[fitted.to(value.device)]


def fit_mask(mask: Tensor, leading: tuple[int, ...]) -> Tensor | None:
    """Booleans of shape ``leading`` where a mask is not 0; None if it has not these axes, flattened maybe into one."""
    if tuple(mask.shape) == leading or (len(leading) == 1 and mask.numel() == leading[0]):
        return (mask != 0).reshape(leading)
    return None


class _Hook:
    def __init__(self, block: MLPBlock, seen: Seen, graph: bool) -> None:
        self.block, self.seen, self.graph = block, seen, graph

    def show(self, value: Any) -> Any:
        if self.graph:
            return self.seen(self.block, value)
        with torch.no_grad():
            value = value.detach() if isinstance(value, Tensor) else value
            return self.seen(self.block, whole(self.block, value) if is_sharded(self.block) else value)


class _Before(_Hook):
    """Before a layer: shows its first argument."""

    def __call__(self, _: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        instead = self.show(args[0] if args else None)
        return None if instead is None else (instead, *args[1:])


class _After(_Hook):
    """After a layer: shows what a site contributed to its output."""

    only_output = True  # not what the layer received

    def __init__(self, block: MLPBlock, seen: Seen, graph: bool, site: LinearSite) -> None:
        super().__init__(block, seen, graph)
        self.site = site

    def __call__(self, _: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        self.show(self.site.part_of(output) if isinstance(output, Tensor) and output.dim() else output)
