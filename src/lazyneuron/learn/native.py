"""The compiled operators on the Boolean cube, when this machine has them."""

from __future__ import annotations

from typing import Any, Literal

import torch

from lazyneuron.core.errors import ConfigError, ImplUnavailable
from lazyneuron.ops.native.load import load

Impl = Literal["auto", "native", "numpy"]
BEST = -1  # the highest ISA level that the processor runs


def operators(impl: Impl = "auto") -> Any | None:
    """The compiled operators, or None when plain numpy is to be used.

    Args:
        impl: ``"auto"`` takes the compiled ones if they are there; a named implementation is used or refused.

    Raises:
        ConfigError: the name is unknown.
        ImplUnavailable: ``"native"`` was asked for and cannot run here; the sentence says why.
    """
    if impl not in ("auto", "native", "numpy"):
        raise ConfigError(f"An implementation is 'auto', 'native' or 'numpy', got {impl!r}.")
    if impl == "numpy":
        return None
    try:
        load()
    except ImplUnavailable:
        if impl == "native":
            raise
        return None
    return torch.ops.lazyneuron
