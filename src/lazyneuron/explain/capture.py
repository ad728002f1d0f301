"""What a block's layers receive and return in a forward, with the graph attached."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

from torch import Tensor, nn

from lazyneuron.blocks.block import MLPBlock


@dataclasses.dataclass
class Captured:
    """One block's tensors of one forward; None what was not seen.

    Attributes:
        x: what the deciding layer receives.
        p: its pre-activations.
        u: what a gated block's function is multiplied by.
        a: what ``down`` receives.
        z: what it returns.
    """

    x: Tensor | None = None
    p: Tensor | None = None
    u: Tensor | None = None
    a: Tensor | None = None
    z: Tensor | None = None

    @property
    def complete(self) -> bool:
        """Did the block run?"""
        return None not in (self.x, self.p, self.a, self.z)


class Capture:
    """Collects while ``on``; a recomputation during the backward (gradient checkpointing) is not collected again."""

    def __init__(self, blocks: Sequence[MLPBlock]) -> None:
        self.blocks = blocks
        self.on = False
        self.seen: dict[str, Captured] = {}

    def begin(self) -> None:
        """Forget the forward before and collect the next one."""
        self.seen = {block.name: Captured() for block in self.blocks}
        self.on = True

    def end(self) -> dict[str, Captured]:
        """Stop collecting; the blocks that ran."""
        self.on = False
        return {name: c for name, c in self.seen.items() if c.complete}

    @contextlib.contextmanager
    def hooked(self) -> Iterator[None]:
        """Hooks on the layers of all blocks, removed at the end."""
        with contextlib.ExitStack() as stack:
            for block in self.blocks:
                stack.callback(block.switch.module.register_forward_pre_hook(self._input(block)).remove)
                stack.callback(block.switch.module.register_forward_hook(self._pre_activation(block)).remove)
                if block.gate is not None and block.up.module is not block.switch.module:
                    stack.callback(block.up.module.register_forward_hook(self._factor(block)).remove)
                stack.callback(block.down.module.register_forward_pre_hook(self._hidden(block)).remove)
                stack.callback(block.down.module.register_forward_hook(self._output(block)).remove)
            yield

    def _input(self, block: MLPBlock) -> Any:
        def hook(_: nn.Module, inputs: tuple[Tensor, ...]) -> Any:
            if not self.on:
                return None
            x = inputs[0]
            if not x.requires_grad:  # nothing before asks for a gradient, so the graph begins here
                x = x.detach().requires_grad_()
            self.seen[block.name].x = x
            return (x, *inputs[1:])

        return hook

    def _pre_activation(self, block: MLPBlock) -> Any:
        def hook(_: nn.Module, __: Any, output: Tensor) -> None:
            if self.on:
                self.seen[block.name].p = block.switch.part_of(output)
                if block.gate is not None and block.up.module is block.switch.module:
                    self.seen[block.name].u = block.up.part_of(output)

        return hook

    def _factor(self, block: MLPBlock) -> Any:
        def hook(_: nn.Module, __: Any, output: Tensor) -> None:
            if self.on:
                self.seen[block.name].u = output

        return hook

    def _hidden(self, block: MLPBlock) -> Any:
        def hook(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            if self.on:
                self.seen[block.name].a = inputs[0]

        return hook

    def _output(self, block: MLPBlock) -> Any:
        def hook(_: nn.Module, __: Any, output: Tensor) -> None:
            if self.on:
                self.seen[block.name].z = output

        return hook
