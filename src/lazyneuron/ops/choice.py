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


def with_fakes(fakes: Mapping[str, Callable[..., Any]]) -> Any:
    """The native operators, ``torch.ops.lazyneuron``.

    Args:
        fakes: fake implementations of the operators of one room by name; registered when they are first wanted.

    Raises:
        ImplUnavailable: the kernels are not built here, with the reason.
    """
    load()
    for name in fakes.keys() - _WITH_FAKES:
        torch.library.register_fake(f"lazyneuron::{name}", fakes[name])
        _WITH_FAKES.add(name)
    return torch.ops.lazyneuron


def level_of(impl: str, *, plain: str, fits: bool, refusal: Callable[[], str]) -> int | None:
    """The level of the kernels that run, a place in :data:`ISA_LEVELS` or :data:`BEST`; None for plain code.

    Args:
        impl: ``"auto"``, ``"native"``, the plain one's name or a kernel level.
        plain: as for :func:`choose`.
        fits: whether the kernels take these arguments; ``"auto"`` takes plain code where they do not.
        refusal: says in one sentence what the kernels take.

    Raises:
        ConfigError, ImplUnavailable: as for :func:`choose`; also where a named level does not take the arguments.
    """
    if impl == "auto" and not fits:
        return None
    chosen = choose(impl, plain=plain, levels=True)
    if chosen.operators is None:
        return None
    if not fits:
        raise ImplUnavailable(refusal())
    return chosen.isa


def native_operators(impl: str = "auto", *, plain: str, fakes: Mapping[str, Callable[..., Any]]) -> Any | None:
    """The native operators, or None when plain code is to do the work.

    Args:
        impl: as for :func:`choose`.
        plain: as for :func:`choose`.
        fakes: as for :func:`with_fakes`.

    Raises:
        ConfigError, ImplUnavailable: as for :func:`choose`.
    """
    return with_fakes(fakes) if choose(impl, plain=plain).operators is not None else None
