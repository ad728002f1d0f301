"""What a batch is: one item of the ``batches`` that every verb takes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from lazyneuron.core.errors import DataError, LazyNeuronError


def call_model(model: nn.Module, batch: Any) -> Any:
    """Run ``model`` on one batch.

    Args:
        model: the model.
        batch: a Tensor (the one positional argument), a tuple (the positional arguments) or a Mapping (the keyword
            arguments).

    Returns:
        What the model returns.

    Raises:
        DataError: the batch is none of these, or the model cannot run on it.
    """
    if not isinstance(batch, Tensor | tuple | Mapping):
        raise DataError(
            f"A batch is a Tensor, a tuple of positional arguments or a mapping of keyword arguments, got "
            f"{type(batch).__name__}; convert it first."
        )
    try:
        if isinstance(batch, Tensor):
            return model(batch)
        return model(*batch) if isinstance(batch, tuple) else model(**batch)
    except LazyNeuronError:
        raise
    except (RuntimeError, TypeError, ValueError, LookupError, AttributeError) as error:
        first = (str(error).strip().splitlines() or [""])[0].rstrip(".")
        raise DataError(
            f"The model cannot run on this batch ({type(error).__name__}: {first}); pass inputs of the shape and dtype "
            "that it takes, on its device."
        ) from error


def padding_mask(batch: Any) -> Tensor | None:
    """The batch's ``attention_mask`` (nonzero where a token is real), or None when it has none."""
    mask = batch.get("attention_mask") if isinstance(batch, Mapping) else None
    return mask if isinstance(mask, Tensor) else None
