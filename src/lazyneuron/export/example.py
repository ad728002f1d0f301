"""One batch that a model is traced with: the user's first, or what the model itself offers."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from lazyneuron.core.errors import DataError

_ROWS, _LENGTH = 2, 16


def example_of(model: nn.Module, batches: Iterable[Any]) -> Any:
    """The first batch, or zeros and ones as a Hugging Face model takes them.

    Args:
        model: the model.
        batches: the user's, maybe none.

    Raises:
        DataError: there is none, and the model offers none.
    """
    for batch in batches:
        return batch
    config, name = getattr(model, "config", None), getattr(model, "main_input_name", None)
    if name == "input_ids":
        return _text(model)
    if name == "pixel_values" and (image := _image(config)) is not None:
        return {name: image}
    raise DataError("This model offers no example input to trace it with; pass batches (on the command line --data).")


def _text(model: nn.Module) -> dict[str, Tensor]:
    ids = torch.ones(_ROWS, _LENGTH, dtype=torch.int64)
    mask = torch.ones_like(ids)
    mask[-1, _LENGTH // 2 :] = 0  # else a trace may leave the mask out
    found = {"input_ids": ids, "attention_mask": mask, "decoder_input_ids": ids}
    taken = inspect.signature(model.forward).parameters
    encoder_decoder = getattr(getattr(model, "config", None), "is_encoder_decoder", False)
    return {k: v for k, v in found.items() if k in taken and (k != "decoder_input_ids" or encoder_decoder)}


def _image(config: Any) -> Tensor | None:
    size, channels = getattr(config, "image_size", None), getattr(config, "num_channels", 3)
    if isinstance(size, int):
        size = (size, size)
    return None if size is None else torch.zeros(_ROWS, channels, *size)
