"""Whole tensors as a process holds them, when parameters are sharded over several."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def as_held(value: Any, held: Any) -> Any:
    """A whole tensor laid out as ``held`` is: sharded if that is sharded, else as it is."""
    mesh = getattr(held, "device_mesh", None)
    if mesh is None or not isinstance(value, Tensor):
        return value
    from torch.distributed.tensor import distribute_tensor

    # every process has read the whole tensor, so none has to send it
    return distribute_tensor(value.to(held.device), mesh, held.placements, src_data_rank=None)


def like_parameters(state: dict[str, Any], optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """An optimiser's state with every tensor of a parameter's shape laid out as that parameter."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    laid = {
        number: {
            key: as_held(v, parameters[number]) if isinstance(v, Tensor) and v.shape == parameters[number].shape else v
            for key, v in entry.items()
        }
        for number, entry in state["state"].items()
        if number < len(parameters)
    }
    return {**state, "state": laid}


def gather_only(tree: Any) -> None:
    """Take part in gathering the sharded tensors of a state that another process writes."""
    if isinstance(tree, Tensor):
        gather = getattr(tree.detach(), "full_tensor", None)
        if gather is not None:
            gather()
    elif isinstance(tree, dict):
        for value in tree.values():
            gather_only(value)
    elif isinstance(tree, list | tuple):
        for value in tree:
            gather_only(value)
