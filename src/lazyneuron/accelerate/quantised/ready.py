"""Decoder layers that were found ready to run together."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Protocol

from torch import Tensor

from lazyneuron.accelerate.execution.together import Member
from lazyneuron.core.watch import Watch
from lazyneuron.ops.decoding.layers import LayerForm
from lazyneuron.ops.native.watching import Look

SETTINGS_EVERY = 64  # tokens between two looks at plain attributes of modules


class Layer(Protocol):
    """What stands for the forward of a decoder layer.

    Attributes:
        index: of its keys and values in a cache.
    """

    index: int

    def held_for(self, x: Tensor, kwargs: Mapping[str, Any]) -> Any | None:
        """What the cache holds of this layer, if this is a call for one token a sequence that follows it."""

    def held_in(self, cache: Any, x: Tensor) -> Any | None:
        """What a cache that grows holds of this layer, if it fits an input like x."""

    def block_of(self, x: Tensor) -> Member | None:
        """The execution of the MLP block, if the layer can run together with others for inputs like x."""

    def record(self, watch: Watch, block: Member, tokens: int) -> LayerForm | None:
        """Have a watch look at what a call looks at, and hand out the weights; None where it cannot."""

    def look_at_settings(self) -> None:
        """Once in a while: plain attributes of the layer and its attention."""


@dataclasses.dataclass(slots=True)
class Ready:
    """Layers that can run together, as long as a look finds nothing changed.

    Attributes:
        layers: in the order of the model; ``blocks``: the executions of their MLP blocks; ``ways``: theirs.
        look: hands out the weights of all, or None once something changed.
        counts, forms, numbers: of the operator.
        tokens: of a call; ``left``: calls until a block runs by itself once, to look at its choices.
        untold: calls that the blocks were not told of.
    """

    layers: list[Layer]
    blocks: list[Member]
    ways: list[object]
    look: Look
    counts: list[Tensor]
    forms: list[int]
    numbers: list[float]
    tokens: int
    left: int
    untold: int = 0

    def weights(self) -> list[Tensor] | None:
        """Of all layers, as they are now; None where they cannot run together any more."""
        for block, way in zip(self.blocks, self.ways, strict=True):
            if not block.holds(self.tokens, way):
                return None
        return self.look()

    def look_at_settings(self) -> None:
        """Plain attributes of layers and blocks; the watch sees what this finds."""
        for layer, block in zip(self.layers, self.blocks, strict=True):
            layer.look_at_settings()
            block.look_at_settings()

    def count(self) -> None:
        """A call."""
        self.untold += 1
        self.left -= 1

    def settle(self) -> None:
        """Tell the blocks how often they ran."""
        new, self.untold = self.untold, 0
        for block, way in zip(self.blocks, self.ways, strict=True):
            block.credit(self.tokens, new, way, due=self.left <= 0 < new)

    def goes_on(self) -> bool:
        """After the blocks looked at their choices: whether all of them came to the same as before."""
        self.left = min(block.calls_ahead(self.tokens) for block in self.blocks)
        return all(block.way(self.tokens) == way for block, way in zip(self.blocks, self.ways, strict=True))
