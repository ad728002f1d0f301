"""Which of a model's linear layers are quantised, and in which form."""

from __future__ import annotations

import dataclasses
from typing import Any

from torch import nn

from lazyneuron.accelerate.quantised.exchange import Layer, layers_of
from lazyneuron.blocks.block import MLPBlock
from lazyneuron.blocks.find import Found
from lazyneuron.blocks.find.linears import find_linears
from lazyneuron.core.errors import NoBlocksError
from lazyneuron.ops.quantised.format import Format
from lazyneuron.ops.sparse_mlp.packed import KERNEL_ACTIVATIONS


@dataclasses.dataclass(frozen=True, kw_only=True)
class Quantisation:
    """What becomes of a model's linear layers.

    Attributes:
        blocks: the format of the MLP blocks' layers, None to keep them.
        rest: the format of all other linear layers, the language-model head included; None to keep them.
    """

    blocks: Format | None
    rest: Format | None

    def config(self) -> dict[str, Any]:
        """As it stands in receipts."""
        names = {"weights": self.blocks, "rest": self.rest}
        group = next((form.group for form in (self.blocks, self.rest) if form is not None), None)
        return {key: "keep" if form is None else form.name for key, form in names.items()} | {"group": group}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """What quantising a model changes; it touches nothing.

    Attributes:
        layers: that are quantised.
        kept: name of each layer that is not -> why.
        whole: blocks of which every layer is, and which are executed as one operator each.
    """

    layers: tuple[Layer, ...]
    kept: dict[str, str]
    whole: tuple[MLPBlock, ...]


def plan_quantisation(model: nn.Module, found: Found, quantisation: Quantisation) -> Plan:
    """Say which layers of a model are quantised; its weights need shapes and dtypes and no numbers.

    Raises:
        NoBlocksError: there is no layer to quantise.
    """
    sparse = [block for block in found.blocks if quantisation.blocks is not None and why_layers(block) is None]
    in_blocks = [site for block in found.blocks for site in block.linears]
    downs = [block.down.module for block in sparse]
    layers, kept = layers_of(in_blocks, quantisation.blocks, downs=downs)
    inside = {id(site.module) for site in in_blocks}
    others = [site for site in find_linears(model).values() if id(site.module) not in inside]
    rest, kept_rest = layers_of(others, quantisation.rest)
    layers, kept = [*layers, *rest], kept | kept_rest
    if not layers:
        why = dict.fromkeys([*kept.values(), *map(str, found.rejected)])
        raise NoBlocksError(f"There is no linear layer to quantise in this model. {' '.join(why)}".rstrip())
    names = {layer.name for layer in layers}
    whole = [block for block in sparse if all(site.name in names for site in block.linears)]
    return Plan(layers=tuple(layers), kept=kept, whole=tuple(whole))


def why_layers(block: MLPBlock) -> str | None:
    """Why a quantised block runs layer by layer, as a sentence, or None when it is executed sparsely."""
    if block.refusal is not None:
        return block.refusal
    if block.activation.elementwise and block.activation.kind not in KERNEL_ACTIVATIONS:
        return f"Its activation ({block.activation.kind}) is zero nowhere, so every neuron is read."
    return None
