"""Nested states of plain values and tensors as JSON and a flat table of tensors, exactly and back."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lazyneuron.core.errors import MALFORMED, CheckpointError, said
from lazyneuron.core.sealed import read_sealed, write_sealed

_PLAIN = (type(None), bool, int, float, str)


def write_tree(tree: Any, folder: Path, name: str) -> None:
    """Save a state in a folder, as the document ``name.json`` and a tensor file.

    Args:
        tree: as for :func:`encode`.
        folder: made if it is missing.
        name: of the state.

    Raises:
        CheckpointError: the state holds what cannot be saved.
        DataError: a file cannot be written.
    """
    written, tensors = encode(tree)
    write_sealed(folder, f"{name}.json", written, {name: tensors})


def read_tree(folder: Path, name: str) -> Any:
    """The state that :func:`write_tree` wrote.

    Raises:
        CheckpointError: a file is missing or damaged.
    """
    written, tensors = read_sealed(folder, f"{name}.json", what="training state")
    return decode(written, tensors.get(name, {}))


def encode(tree: Any, *, gather: bool = True) -> tuple[Any, dict[str, Tensor]]:
    """Take a state apart into JSON and tensors.

    Args:
        tree: dictionaries, lists, tuples, tensors, NumPy arrays, numbers, strings, booleans and None, nested.
        gather: copy the tensors, whole, to the host; for sharded ones every process has to call. False leaves tensors
            as they are.

    Raises:
        CheckpointError: the state holds something else.
    """
    tensors: dict[str, Tensor] = {}
    try:
        written = _encode(tree, tensors, "the state")
    except RecursionError as error:
        raise CheckpointError("The state is nested too deeply, or holds itself; it cannot be saved.") from error
    return written, {name: whole(value).contiguous().clone() for name, value in tensors.items()} if gather else tensors


def decode(written: Any, tensors: Mapping[str, Tensor]) -> Any:
    """The state that :func:`encode` took apart.

    Raises:
        CheckpointError: these are no such parts.
    """
    try:
        return _decode(written, tensors)
    except MALFORMED as error:
        raise CheckpointError(
            f"This is no training state ({type(error).__name__}: {said(error)}); use an earlier checkpoint."
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
        tensors[name] = value.detach()
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


def _decode(value: Any, tensors: Mapping[str, Tensor]) -> Any:
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
    return {"list": list, "tuple": tuple}[kind](items)
