"""What a block's layers receive and return in a forward, with the graph attached."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Sequence

from torch import Tensor

from lazyneuron.blocks.block import MLPBlock
from lazyneuron.blocks.recorder import Seen, recording


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

    def recording(self) -> contextlib.AbstractContextManager[None]:
        """Look at all blocks in the body."""
        return recording(
            self.blocks,
            inputs=self._input,
            pre_activations=self._keep("p"),
            factors=self._keep("u"),
            hidden=self._keep("a"),
            outputs=self._keep("z"),
            graph=True,
        )

    def _input(self, block: MLPBlock, x: Tensor) -> Tensor | None:
        if not self.on:
            return None
        if not x.requires_grad:  # nothing before asks for a gradient, so the graph begins here
            x = x.detach().requires_grad_()
        self.seen[block.name].x = x
        return x

    def _keep(self, name: str) -> Seen:
        def keep(block: MLPBlock, value: Tensor) -> None:
            if self.on:
                setattr(self.seen[block.name], name, value)

        return keep
