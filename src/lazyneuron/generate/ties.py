"""Weights that a model holds under several names: which stored tensor each is, and what quantising makes of them."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from lazyneuron.accelerate.quantised.modules import Quantised
from lazyneuron.core.hollow import empty_
from lazyneuron.generate.places import Weights


def stored_names(model: nn.Module, found: Weights) -> dict[str, str]:
    """Every parameter's name -> the name under which it is stored. Ties that the files contradict are cut."""
    stored: dict[int, str] = {}
    named = dict(model.named_parameters(remove_duplicate=False))
    for name, parameter in named.items():
        if name not in found.places:
            continue
        first = stored.setdefault(id(parameter), name)
        if first != name and not torch.equal(found.read(first), found.read(name)):
            own = nn.Parameter(parameter.data, requires_grad=parameter.requires_grad)
            setattr(_owner(model, name), name.rpartition(".")[2], own)
            empty_(own)
    named = dict(model.named_parameters(remove_duplicate=False))
    stored = {}
    for name, parameter in named.items():
        if name in found.places:
            stored.setdefault(id(parameter), name)
    return {name: stored[id(parameter)] for name, parameter in named.items() if id(parameter) in stored}


def notes_of_copies(model: nn.Module, names: Mapping[str, str]) -> list[str]:
    """A sentence for each quantised layer whose weight stays elsewhere as it is stored.

    Args:
        model: its layers are quantised already.
        names: what :func:`stored_names` gave before.
    """
    return [
        f"{_parent(name)} is tied to {other}, and became a quantised copy of it."
        for name, first in names.items()
        if isinstance(_owner(model, name), Quantised)
        for other, its in names.items()
        if its == first and not isinstance(_owner(model, other), Quantised)
    ]


def _parent(name: str) -> str:
    return name.rpartition(".")[0]


def _owner(model: nn.Module, name: str) -> nn.Module:
    return model.get_submodule(_parent(name))
