"""What of a model's state is saved, and how a model takes it back."""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lazyneuron.core.errors import MALFORMED, CheckpointError

_as_they_lie = contextvars.ContextVar("as_they_lie", default=False)


@contextlib.contextmanager
def as_they_lie() -> Iterator[None]:
    """Within this, ``state_dict()`` holds the model's own tensors, also where it would copy them into one piece."""
    before = _as_they_lie.set(True)
    try:
        yield
    finally:
        _as_they_lie.reset(before)


def in_one_piece(tensor: Tensor) -> Tensor:
    """A tensor that lies among others as it is saved by itself: no view of memory in which others hold other types."""
    return tensor if _as_they_lie.get() else tensor.contiguous()


def saved_state(model: nn.Module) -> dict[str, Tensor]:
    """The state with tied tensors once; ``load_`` ties them again by the model itself.

    Raises:
        CheckpointError: it holds something else than tensors.
    """
    own = model.state_dict()
    odd = {key: type(value).__name__ for key, value in own.items() if not isinstance(value, Tensor)}
    if odd:
        raise CheckpointError(
            f"The state holds {odd}, which cannot be saved without pickle; keep tensors only in a state_dict."
        )
    state = {key: value.detach() for key, value in own.items()}
    first: dict[tuple[Any, ...], str] = {}
    for key, value in state.items():
        same = (value.data_ptr(), value.shape, value.stride(), value.dtype) if value.numel() else (key,)
        first.setdefault(same, key)
    return {key: state[key] for key in first.values()}


def load_state_(model: nn.Module, state: dict[str, Tensor]) -> None:
    """Let a model take tensors of its ``state_dict``.

    Raises:
        CheckpointError: it does not.
    """
    try:
        with torch.no_grad():
            model.load_state_dict(state, strict=False)
    except MALFORMED as error:
        why = " ".join(str(error).split()).rstrip(".")
        raise CheckpointError(f"This {type(model).__name__} does not take its weights back: {why}.") from error


def check_state(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Refuse a saved state that is not this model's, name by name and shape by shape.

    Raises:
        CheckpointError: it is not, or the model's tensors are on the meta device.
    """
    with as_they_lie():
        own = model.state_dict()
    unmade = [key for key in state if key in own and own[key].is_meta]
    if unmade:
        raise CheckpointError(
            f"{len(unmade)} tensors of this {type(model).__name__} (such as {unmade[:1]}) lie on the meta device, "
            "where nothing can be loaded; build the model on a real one."
        )
    wrong = [key for key in state if key not in own or own[key].shape != state[key].shape]
    held = {own[key].data_ptr() for key in state if key in own}
    missing = [key for key, value in own.items() if key not in state and value.data_ptr() not in held]
    if wrong or missing:
        raise CheckpointError(
            f"The saved weights do not fit this model: {len(wrong)} do not belong to it (such as {wrong[:1]}) and "
            f"{len(missing)} are missing (such as {missing[:1]}); build the model as the saved one was built."
        )
