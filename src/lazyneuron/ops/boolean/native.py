"""The compiled operators on the Boolean cube, when this machine has them."""

from __future__ import annotations

from typing import Any, Literal

from lazyneuron.ops.choice import choose

Impl = Literal["auto", "native", "numpy"]


def operators(impl: Impl = "auto") -> Any | None:
    """The compiled operators, or None when plain numpy is to be used.

    Args:
        impl: ``"auto"`` takes the compiled ones if they are there; a named implementation is used or refused.

    Raises:
        ConfigError: the name is unknown.
        ImplUnavailable: ``"native"`` was asked for and cannot run here; the sentence says why.
    """
    return choose(impl, plain="numpy").operators
