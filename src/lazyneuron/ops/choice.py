"""Which implementation of an operator runs: its native kernels, or plain code with the same results."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch

from lazyneuron.core.errors import ConfigError, ImplUnavailable
from lazyneuron.ops.native.build import ISA_LEVELS
from lazyneuron.ops.native.load import load

BEST = -1  # the highest ISA level that the processor runs
_WITH_FAKES: set[str] = set()


class Choice(NamedTuple):
    """What runs.

    Attributes:
        operators: the native operators, or None for plain code.
        isa: place in :data:`ISA_LEVELS` of the level that was asked for by name, else :data:`BEST`.
        reason: one sentence why ``"auto"`` falls back to plain code, else None.
    """

    operators: Any | None
    isa: int = BEST
    reason: str | None = None


def choose(impl: str = "auto", *, plain: str, levels: bool = False) -> Choice:
    """Choose an implementation: ``"auto"`` may fall back and says why, a named one runs or is refused.

    Args:
        impl: ``"auto"``, ``"native"``, the plain one's name, or with ``levels`` an ISA level of the kernels.
        plain: what the plain implementation is called.
        levels: whether an ISA level may be named.

    Raises:
        ConfigError: the name is unknown.
        ImplUnavailable: what was asked for by name cannot run here; the sentence says why.
    """
    known = ("auto", "native", plain, *(ISA_LEVELS if levels else ()))
    if impl not in known:
        raise ConfigError(f"impl is one of {', '.join(known)}, got {impl!r}.")
    if impl == plain:
        return Choice(None)
    try:
        load()
    except ImplUnavailable as error:
        if impl != "auto":
            raise
        return Choice(None, reason=str(error))
    if impl in ("auto", "native"):
        return Choice(torch.ops.lazyneuron)
    level, best = ISA_LEVELS.index(impl), int(torch.ops.lazyneuron.best_isa())
    if level > best:
        raise ImplUnavailable(f"This processor runs kernels up to {ISA_LEVELS[best]!r}, not {impl!r}.")
    return Choice(torch.ops.lazyneuron, isa=level)


def native_operators(impl: str = "auto", *, plain: str, fakes: Mapping[str, Callable[..., Any]]) -> Any | None:
    """The native operators, or None when plain code is to do the work.

    Args:
        impl: as for :func:`choose`.
        plain: as for :func:`choose`.
        fakes: fake implementations of the operators of one room by name; registered when they are first wanted.

    Raises:
        ConfigError, ImplUnavailable: as for :func:`choose`.
    """
    found = choose(impl, plain=plain).operators
    if found is not None:
        for name in fakes.keys() - _WITH_FAKES:
            torch.library.register_fake(f"lazyneuron::{name}", fakes[name])
            _WITH_FAKES.add(name)
    return found
