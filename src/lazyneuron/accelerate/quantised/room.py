"""Memory for the keys and values of tokens to come, behind those that a cache of transformers holds."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor

_ATTRIBUTE = "_lazyneuron_room"
_LEAST = 64  # tokens


@dataclasses.dataclass(slots=True)
class Room:
    """What one layer of a cache holds, and the memory that it lies in.

    A step writes behind ``held`` and hands out longer views of the same memory: no view that was handed out before
    changes. It does so only while the layer still holds the very tensors that it was given, and is the layer that was
    given them; whatever else happened to it (cropped, reordered, copied), new memory is filled.

    Attributes:
        owner: id of the cache's layer.
        keys, values: (batch, heads that share, tokens that fit, width).
        held: views of them, what the layer's ``keys`` and ``values`` are.
    """

    owner: int
    keys: Tensor
    values: Tensor
    held: tuple[Tensor, Tensor]


def room_there(layer: Any) -> tuple[Tensor, Tensor] | None:
    """The memory that a cache's layer lies in, if there is room for one token more."""
    room = layer.__dict__.get(_ATTRIBUTE)
    if (
        room is None
        or room.owner != id(layer)
        or room.held[0] is not layer.keys
        or room.held[1] is not layer.values
        or layer.keys.shape[2] >= room.keys.shape[2]
    ):
        return None
    return room.keys, room.values


def room_behind(layer: Any, *, exact: bool = False) -> tuple[Tensor, Tensor]:
    """Keys and values of a cache's layer in memory that has room for one token more.

    Args:
        layer: a ``DynamicLayer`` of transformers that holds tokens.
        exact: always in new memory, with room for that token alone.

    Returns:
        Each (batch, heads that share, tokens that fit, width).
    """
    there = None if exact else room_there(layer)
    if there is not None:
        return there
    keys, values = layer.keys, layer.values
    tokens = keys.shape[2]
    fits = tokens + 1 if exact else tokens + max(_LEAST, tokens // 2)
    return _moved(keys, fits), _moved(values, fits)


def keep_one_more(layer: Any, keys: Tensor, values: Tensor) -> None:
    """Let a cache's layer hold one token more of the memory that :func:`room_behind` gave, now that it is written."""
    tokens = layer.keys.shape[2] + 1
    held = (keys.narrow(2, 0, tokens), values.narrow(2, 0, tokens))
    layer.keys, layer.values = held
    layer.__dict__[_ATTRIBUTE] = Room(id(layer), keys, values, held)


def _moved(held: Tensor, fits: int) -> Tensor:
    batch, heads, tokens, width = held.shape
    with torch.inference_mode(False), torch.no_grad():  # later tokens may come in another mode
        memory = torch.empty((batch, heads, fits, width), dtype=held.dtype)
        memory.narrow(2, 0, tokens).copy_(held)
    return memory
