"""Nested states of plain values and tensors as JSON and a flat table of tensors, exactly and back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from lazyneuron.core.errors import CheckpointError
from lazyneuron.core.record import write_bytes, write_text

_PLAIN = (type(None), bool, int, float, str)


def write_tree(tree: Any, path: Path) -> None:
    """Write a state as ``path.json`` and ``path.safetensors``.

    Args:
        tree: dictionaries, lists, tuples, tensors, NumPy arrays, numbers, strings, booleans and None, nested. Sharded
            tensors are gathered, for which every process has to call.
        path: without a suffix.

    Raises:
        CheckpointError: the state holds something else.
        DataError: a file cannot be written.
    """
    tensors: dict[str, Tensor] = {}
    written = json.dumps(_encode(tree, tensors, "the state"))
    write_bytes(path.with_suffix(".safetensors"), safetensors.torch.save(tensors))
    write_text(path.with_suffix(".json"), written)


def read_tree(path: Path) -> Any:
    """The state that :func:`write_tree` wrote.

    Raises:
        CheckpointError: a file is missing or damaged.
    """
    try:
        tensors = safetensors.torch.load_file(path.with_suffix(".safetensors"))
        return _decode(json.loads(path.with_suffix(".json").read_text(encoding="utf-8")), tensors)
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise CheckpointError(
            f"{path} does not hold a training state ({type(error).__name__}: {error}); use an earlier checkpoint."
        ) from error


def whole(value: Tensor) -> Tensor:
    """The tensor on the host, gathered if it is sharded."""
    value = value.detach()
    gather = getattr(value, "full_tensor", None)
    return (gather() if gather is not None else value).cpu()


def _encode(value: Any, tensors: dict[str, Tensor], place: str) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, _PLAIN):
        return value
    if isinstance(value, Tensor):
        name = f"t{len(tensors)}"
        tensors[name] = whole(value).contiguous().clone()
        return {"tensor": name}
    if isinstance(value, np.ndarray):
        return {"array": _encode(torch.from_numpy(np.ascontiguousarray(value)), tensors, place)["tensor"]}
    if isinstance(value, list | tuple):
        return {type(value).__name__: [_encode(v, tensors, f"{place}[{k}]") for k, v in enumerate(value)]}
    if isinstance(value, dict):
        # pairs, since keys may be numbers and their order counts
        return {
            "dict": [[_encode(k, tensors, place), _encode(v, tensors, f"{place}[{k!r}]")] for k, v in value.items()]
        }
    raise CheckpointError(
        f"{place} is a {type(value).__name__}, which cannot be saved without pickle; keep numbers, strings, tensors, "
        "lists and dictionaries in a state_dict."
    )


def _decode(value: Any, tensors: dict[str, Tensor]) -> Any:
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "array":
        return tensors[content].numpy()
    if kind == "dict":
        return {_decode(k, tensors): _decode(v, tensors) for k, v in content}
    items = [_decode(v, tensors) for v in content]
    return tuple(items) if kind == "tuple" else items
