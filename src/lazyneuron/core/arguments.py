"""Arguments that several verbs take: what they may be, and one sentence when they are something else."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor, nn

from lazyneuron.core.errors import ConfigError, DataError
from lazyneuron.core.receipt import Receipt


def check_model(model: Any) -> None:
    """Refuse what is no model.

    Raises:
        ConfigError: it is no ``torch.nn.Module``.
    """
    if not isinstance(model, nn.Module):
        raise ConfigError(f"A model is a torch.nn.Module, got {described(model)}; pass the model itself.")


def check_batches(batches: Any) -> None:
    """Refuse what is no iterable of batches.

    Raises:
        DataError: it is a single batch, or nothing that can be iterated.
    """
    if isinstance(batches, Tensor | Mapping | str | bytes):
        raise DataError(
            f"Batches are an iterable of batches, got a single {type(batches).__name__}; wrap it in a list."
        )
    if not isinstance(batches, Iterable):
        raise DataError(f"Batches are an iterable of batches, got {described(batches)}; pass a list or a loader.")


def check_receipts(receipts: Iterable[Any]) -> None:
    """Refuse what are no receipts.

    Raises:
        ConfigError: one is no ``Receipt``.
    """
    for receipt in receipts:
        if not isinstance(receipt, Receipt):
            raise ConfigError(f"A receipt is what a verb returned, got {described(receipt)}; pass each one by itself.")


def check_patterns(blocks: Any) -> None:
    """Refuse what are no glob patterns of block names.

    Raises:
        ConfigError: it is one text, empty, or holds something else than texts.
    """
    several = isinstance(blocks, Iterable) and not isinstance(blocks, str) and bool(blocks)
    if not several or not all(isinstance(pattern, str) for pattern in blocks):
        raise ConfigError(f"`blocks` is a tuple of at least one glob pattern, got {blocks!r}.")


def check_choice(name: str, value: Any, known: Iterable[str]) -> None:
    """Refuse what is none of some names.

    Raises:
        ConfigError: it is not.
    """
    if value not in known:
        shown = described(value) if isinstance(value, int) else repr(value)
        raise ConfigError(f"{name} is one of {', '.join(known)}, got {shown}.")


def check_fraction(name: str, value: Any) -> None:
    """Refuse what is no fraction strictly between 0 and 1.

    Raises:
        ConfigError: it is not.
    """
    if not isinstance(value, int | float) or not 0 < value < 1:
        raise ConfigError(f"A {name} is a fraction between 0 and 1, got {value!r}.")


def check_switch(name: str, value: Any) -> None:
    """Refuse what is neither True nor False.

    Raises:
        ConfigError: it is neither.
    """
    if not isinstance(value, bool):
        raise ConfigError(f"{name} is True or False, got {described(value)}.")


def check_tensor(name: str, value: Any, *, floats: bool = False) -> None:
    """Refuse what is no tensor and, with ``floats``, one of other numbers.

    Raises:
        DataError: it is not.
    """
    if not isinstance(value, Tensor):
        raise DataError(f"{name} is a torch.Tensor, got {described(value)}; convert it with torch.as_tensor.")
    if floats and not value.is_floating_point():
        raise DataError(f"{name} is a tensor of floats, got {value.dtype}; convert it with .float().")


def check_folder(folder: Any) -> None:
    """Refuse what names no folder.

    Raises:
        ConfigError: it is neither text nor a path.
    """
    if not isinstance(folder, str | os.PathLike) or not str(folder) or "\0" in str(folder):
        raise ConfigError(f"A folder is named by text or a path, got {described(folder)}; name one.")


def check_finite(name: str, value: Any) -> None:
    """Refuse what is no tensor of finite numbers; the name begins the sentence: "Eigenvalues", "A batch".

    Raises:
        DataError: it is none.
    """
    if not isinstance(value, Tensor):
        raise DataError(f"{name} must be a tensor, got {described(value)}.")
    if not bool(value.isfinite().all()):
        raise DataError(f"{name} must be finite, got NaN or infinity; look for where these values come from.")


def described(value: Any) -> str:
    """A value in a few words, for the sentence of an error."""
    if isinstance(value, type):
        return f"the class {value.__name__} (call it to make one)"
    if isinstance(value, int) and abs(value) > 10**18:  # it may have thousands of digits
        return f"a whole number of about 2^{value.bit_length()}"
    if value is None or isinstance(value, bool | int | float | str):
        return repr(value)
    return type(value).__name__
