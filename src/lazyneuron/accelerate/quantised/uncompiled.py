"""What compilers must not trace. Importing this imports the compiler."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch


def _run(forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """``forward(*args, **kwargs)``, as if nobody compiled."""
    return forward(*args, **kwargs)


run: Callable[..., Any] = torch.compiler.disable(  # type: ignore[no-untyped-call]
    _run, reason="With a growing cache, a quantised model runs its operators outside of graphs."
)


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def is_one_graph() -> bool:
    """Does whoever compiles now insist on one graph, by ``fullgraph=True``?

    A compiler that does not tell is taken not to.
    """
    from torch._dynamo.symbolic_convert import InstructionTranslator

    tracing = InstructionTranslator.current_tx()
    return bool(getattr(tracing, "one_graph", False) or getattr(tracing, "error_on_graph_break", False))
