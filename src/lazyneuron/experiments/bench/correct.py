"""What every benchmark makes sure of before it times anything."""

from __future__ import annotations

from lazyneuron.core.errors import ImplUnavailable, LazyNeuronError
from lazyneuron.ops.native import load


def needs_kernels() -> None:
    """Make sure that there is something to measure.

    Raises:
        ImplUnavailable: the native kernels are not built.
    """
    if not load.status().available:
        raise ImplUnavailable("The native kernels are not built; run lazyneuron doctor --build.")


def refuse_wrong(what: str, right: bool) -> None:
    """Make sure that what is timed is right.

    Raises:
        LazyNeuronError: it is not.
    """
    if not right:
        raise LazyNeuronError(f"{what} differs from its definition; nothing is timed.")
