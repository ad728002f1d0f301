"""Fingerprints of weights, piece by piece: a change of one word of a piece changes its fingerprint."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from lazyneuron.ops.choice import native_operators
from lazyneuron.ops.fingerprint import reference

#: Bytes that are compared at each call of one token; a full check compares all of them.
BYTES_A_CALL = 8 << 10
_BYTES_WITHOUT_KERNELS = 4 << 10  # the checksum of the standard library is a tenth as fast


def memory_of(parameter: Tensor) -> Tensor:
    """A parameter's memory as a uint8 vector, or as a matrix whose rows lie apart; it shares it.

    Args:
        parameter: of one or two axes, one of which has stride 1.
    """
    values = parameter.detach()
    values = values if values.ndim < 2 or values.stride(1) == 1 else values.t()
    return (values.view(-1) if values.is_contiguous() else values).view(torch.uint8)


def can_be_read(parameter: Tensor) -> bool:
    """Is there an axis along which the parameter's elements lie side by side?"""
    return parameter.ndim in (1, 2) and (1 in parameter.stride() or parameter.is_contiguous())


def native_ops() -> Any | None:
    """The native operators, or None where they are not built."""
    return native_operators(plain="python", fakes={"fingerprint": _fake})


def _fake(memory: list[Tensor]) -> Tensor:
    """For compilers; first_change, whose result depends on the data, has none."""
    count = sum(len(one) if one.ndim == 2 else -(-len(one) // reference.PIECE) for one in memory)
    return torch.empty(count, dtype=torch.int64)


class Fingerprint:
    """What some parameters held when this was made.

    Args:
        parameters: each with an axis of stride 1; their memory is kept alive.
    """

    def __init__(self, parameters: Sequence[Tensor]) -> None:
        self._memory = [memory_of(parameter) for parameter in parameters]
        operators = native_ops()
        self._first_change: Callable[[list[Tensor], Tensor, int, int, int], int]
        if operators is not None:
            self._first_change = operators.first_change.default._op  # without its wrapper in Python
            self._wanted = operators.fingerprint.default(self._memory)
        else:
            self._first_change = reference.first_change
            self._wanted = reference.fingerprint(self._memory)
        size = sum(memory.numel() for memory in self._memory)
        self.turns = max(1, -(-size // (_BYTES_WITHOUT_KERNELS if operators is None else BYTES_A_CALL)))
        self._turn = 0

    def holds(self) -> bool:
        """Is every byte as it was? One pass over the parameters, on all threads."""
        return self._first_change(self._memory, self._wanted, 0, 1, 1) < 0

    def holds_in_part(self, parts: int = 1) -> bool:
        """Are the next ``parts`` of :attr:`turns` equal parts of every parameter as they were?

        Each call goes on where the last one ended, and looks at 4 KiB, or one row, of every parameter at least.
        """
        if parts >= self.turns:
            return self.holds()
        turn, turns = self._turn, self.turns
        self._turn = (turn + parts) % turns
        here = min(parts, turns - turn)  # the rest begins at the front again
        return self._first_change(self._memory, self._wanted, turn, turns, here) < 0 and (
            here == parts or self._first_change(self._memory, self._wanted, 0, turns, parts - here) < 0
        )
