"""The comparison of the operators with their definitions notices planted faults."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from tests.kernels import needs_kernels
from tests.operators.calls import CALLS, check, expected

pytestmark = needs_kernels


def _lost(t: Tensor) -> Tensor:
    """One value is forgotten."""
    faulty = t.clone()
    faulty.view(-1)[int(t.abs().argmax())] = 0
    return faulty


def _neighbour(t: Tensor) -> Tensor:
    """Every value stands one place further on."""
    return t.flatten().roll(1).reshape(t.shape)


def _narrow(t: Tensor) -> Tensor:
    """Sums are kept in 16 bits."""
    return t.to(torch.bfloat16).to(t.dtype)


@pytest.mark.parametrize("fault", [_lost, _neighbour, _narrow])
@pytest.mark.parametrize("name", CALLS)
def test_a_planted_fault_is_noticed(name: str, fault: Callable[[Tensor], Tensor]) -> None:
    wanted = expected(name, CALLS[name]()) or ()
    for place, value in enumerate(wanted):
        if not isinstance(value, Tensor) or value.numel() < 2:
            continue
        faulty = fault(value.contiguous())
        if fault is _narrow and torch.equal(faulty, value):  # small whole numbers
            continue
        with pytest.raises(AssertionError):
            check((*wanted[:place], faulty, *wanted[place + 1 :]), wanted, length=100)
