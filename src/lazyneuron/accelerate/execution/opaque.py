"""A block's execution as one operator, so that ``torch.compile`` keeps it whole instead of tracing into it.

The operator takes the execution's number; looking at weights, choosing a path and following the density happen inside
it at run time, as in eager mode.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from lazyneuron.accelerate.execution.enlisted import Enlisted
from lazyneuron.core.errors import ConfigError


class Execution(Protocol):
    """What runs a block."""

    @property
    def d_out(self) -> int:
        """Width of the block's output."""

    def original(self, x: Tensor) -> Tensor:
        """The block as it would run without this."""

    def __call__(self, x: Tensor) -> Tensor | None:
        """The block's output, or None for "run the original path"."""


_executions: Enlisted[Execution] = Enlisted()


def enlist(execution: Execution) -> int:
    """Give an execution the number that the operator knows it by, for as long as it lives."""
    op()
    return _executions.enlist(execution)


@functools.cache
def op() -> Callable[[Tensor, int, int], Tensor]:
    """The operator ``lazyneuron::execute_block(x, number, d_out)``, registered on first use."""
    run = torch.library.custom_op("lazyneuron::execute_block", _execute, mutates_args=())
    run.register_fake(_fake)
    call: Callable[[Tensor, int, int], Tensor] = torch.ops.lazyneuron.execute_block.default
    return call


def _execute(x: Tensor, number: int, d_out: int) -> Tensor:
    execution = _executions.of(number)
    if d_out != execution.d_out:
        raise ConfigError(f"This block's outputs are {execution.d_out} wide, and {d_out} were asked for; pass its own.")
    y = execution(x)
    return execution.original(x) if y is None else y


def _fake(x: Tensor, number: int, d_out: int) -> Tensor:
    return x.new_empty((*x.shape[:-1], d_out))
