"""Exchanging a model's linear layers for quantised ones."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from lazyneuron.accelerate.quantised.modules import Quantised, QuantisedDown, QuantisedLinear
from lazyneuron.blocks.block import LinearSite, MLPBlock
from lazyneuron.core.undo import Transaction
from lazyneuron.ops.gpu_mlp.available import why_not as why_not_on
from lazyneuron.ops.quantised.format import GROUPS, Format
from lazyneuron.ops.sparse_mlp.packed import DTYPES


@dataclasses.dataclass(frozen=True, kw_only=True)
class Layer:
    """One linear layer that is to be quantised.

    Attributes:
        name: dotted name.
        module: the layer.
        transposed: its weight is stored as (in, out).
        form: the format it gets.
        down: it is the second layer of a block, and stored by neuron.
    """

    name: str
    module: nn.Module
    transposed: bool
    form: Format
    down: bool = False

    def make(self) -> Quantised:
        """The quantised layer.

        Raises:
            ShapeError: groups do not divide its rows.
            AssumptionError: weights that are not finite.
        """
        site = LinearSite(name=self.name, module=self.module, transposed=self.transposed)
        kind = QuantisedDown if self.down else QuantisedLinear
        return kind(site.weight, site.bias, self.form, what=self.name)

    def check(self) -> None:
        """Make sure, before anything is changed, that its rows can be stored.

        Raises:
            ShapeError: groups do not divide them.
        """
        weight = LinearSite(name=self.name, module=self.module, transposed=self.transposed).weight
        self.form.check_width(weight.shape[0 if self.down else 1], self.name)

    def to_data(self) -> dict[str, Any]:
        """What a receipt keeps, enough to make the empty layer again."""
        weight = LinearSite(name=self.name, module=self.module, transposed=self.transposed).weight
        return {
            "name": self.name,
            "bits": self.form.bits,
            "group": self.form.group,
            "down": self.down,
            "out_features": weight.shape[0],
            "in_features": weight.shape[1],
            "bias": getattr(self.module, "bias", None) is not None,
            "dtype": str(weight.dtype).removeprefix("torch."),
        }


def empty_layer(data: Mapping[str, Any]) -> Quantised:
    """The layer of :meth:`Layer.to_data`, its bytes still to be loaded."""
    kind = QuantisedDown if data["down"] else QuantisedLinear
    form = Format(bits=int(data["bits"]), group=int(data["group"]))
    sizes = (int(data["in_features"]), int(data["out_features"]))
    return kind.empty(sizes, getattr(torch, data["dtype"]), form, bias=bool(data["bias"]))


def why_not(site: LinearSite) -> str | None:
    """Why a layer keeps its weights, as a sentence, or None."""
    module = site.module
    weight = module._parameters.get("weight")
    if type(module) is not nn.Linear and not site.transposed:
        return f"{site.name} is a {type(module).__name__}, which may do more than multiply."
    if weight is None or type(weight) is not nn.Parameter or "parametrizations" in module._modules:
        return f"The weight of {site.name} is no plain parameter."
    if weight.dtype not in DTYPES:
        return f"The weight of {site.name} is {weight.dtype} on {weight.device}; the kernels take 16 and 32 bits."
    if not weight.is_cpu and (reason := why_not_on(weight.device)) is not None:
        return reason
    if module._forward_hooks or module._forward_pre_hooks or "forward" in module.__dict__:
        return f"{site.name} has hooks or a forward of its own, which would be lost."
    return None


def _too_narrow(site: LinearSite, form: Format, *, down: bool) -> str | None:
    """Why a layer has too few weights to share a scale, as a sentence, or None."""
    width = site.weight.shape[0 if down else 1]
    if form.bits == 8 or width >= min(GROUPS):
        return None
    return f"{site.name} has rows of {width} weights, fewer than any scale group."


def exchange_(change: Transaction, model: nn.Module, new: Mapping[str, Quantised]) -> None:
    """Put quantised layers in the places of the layers of these names, everywhere the model holds those."""
    replaced = {model.get_submodule(name): layer for name, layer in new.items()}
    places = [
        (holder, key, replaced[child])
        for holder in list(model.modules())
        for key, child in holder._modules.items()
        if child in replaced
    ]
    for old, layer in replaced.items():
        layer.train(old.training)
    for holder, key, layer in places:
        change.set(holder, key, layer)


def requantised(block: MLPBlock, new: Mapping[str, Quantised]) -> MLPBlock:
    """The block on its quantised layers."""

    def moved(site: LinearSite) -> LinearSite:
        return dataclasses.replace(site, module=new[site.name], transposed=False)

    gate = None if block.gate is None else moved(block.gate)
    return dataclasses.replace(block, up=moved(block.up), gate=gate, down=moved(block.down))


def layers_of(
    sites: Iterable[LinearSite], form: Format | None, *, downs: Sequence[nn.Module] = ()
) -> tuple[list[Layer], dict[str, str]]:
    """The layers of these sites that can be quantised, and the others with their reasons; nothing without a format."""
    if form is None:
        return [], {}
    layers, kept = [], {}
    seen: set[int] = set()
    for site in sites:
        if id(site.module) in seen:
            continue
        seen.add(id(site.module))
        reason = why_not(site) or _too_narrow(site, form, down=site.module in downs)
        if reason is not None:
            kept[site.name] = reason
            continue
        layers.append(
            Layer(name=site.name, module=site.module, transposed=site.transposed, form=form, down=site.module in downs)
        )
    return layers, kept


def quantise_layers(layers: Sequence[Layer], progress: Callable[[str], None]) -> dict[str, Quantised]:
    """Quantise layer after layer.

    Raises:
        ShapeError: groups do not divide the rows of a layer.
        AssumptionError: weights that are not finite.
    """
    for layer in layers:
        layer.check()
    made = {}
    for number, layer in enumerate(layers):
        progress(f"Quantising {layer.name} ({number + 1} of {len(layers)})")
        made[layer.name] = layer.make()
    return made
