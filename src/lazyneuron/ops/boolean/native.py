"""The compiled operators on the Boolean cube, when this machine has them, with their fake implementations.

They have no gradients: what they are given are points, labels and coefficients of arrays.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor

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
    found = choose(impl, plain="numpy").operators
    if found is not None:
        _register()
    return found


@functools.cache
def _register() -> None:
    for name, fake in _FAKES.items():
        torch.library.register_fake(f"lazyneuron::{name}", fake)


def _characters(bits: Tensor, degree: int, dtype: torch.dtype) -> Tensor:
    return bits.new_empty(sum(math.comb(bits.shape[0], k) for k in range(degree + 1)), dtype=dtype)


_FAKES: dict[str, Callable[..., Any]] = {
    "fwht_": lambda x, isa: x,
    "walsh_moments": lambda bits, rows, degree, isa: _characters(bits, degree, torch.int32),
    "walsh_analysis": lambda bits, y, degree, isa: _characters(bits, degree, torch.float64),
    "walsh_synthesis": lambda bits, coefficient, rows, degree, isa: coefficient.new_empty(rows),
    "walsh_gram": lambda subsets, moments, n, isa: subsets.new_empty([len(subsets)] * 2, dtype=torch.float32),
    "gram_product": lambda gram, x, isa: x.new_empty(x.numel()),
    "hamming_lookup": lambda a, b, table, isa: table.new_empty(len(a), len(b)),
    "hamming_sums": lambda rows, y, n, isa: y.new_empty(n + 1),
}
