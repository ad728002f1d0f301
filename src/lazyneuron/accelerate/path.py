"""The paths: the ways in which a block can be executed."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import NamedTuple

from torch import Tensor

from lazyneuron.ops.choice import choose
from lazyneuron.ops.sparse_mlp import gather, native
from lazyneuron.ops.sparse_mlp.packed import PackedBlock

Call = Callable[[Tensor], Tensor]


@dataclasses.dataclass(frozen=True, eq=False, slots=True)
class Path:
    """One way to execute a block. There is one object of each; copies of it are itself, so ``is`` compares.

    Attributes:
        name: as it stands in receipts, statuses, records and files.
        planes: int8 planes of x in the sketch product of a certified path; 0 where nothing is certified.
    """

    name: str
    planes: int = 0

    def runner(self, packed: PackedBlock, counts: Tensor, *, isa: int = -1) -> Call:
        """A sparse path as a callable of ``x``.

        Args:
            packed: the block.
            counts: what a certified path adds to, from :func:`lazyneuron.ops.sparse_mlp.native.new_counts`.
            isa: kernel level, or -1 for the best.
        """
        assert self not in (DENSE, TRITON), "dense runs on the model's own modules, triton by its own execution"
        if self is GATHER:
            return functools.partial(gather.sparse_mlp, packed)
        arguments = native.arguments(packed, counts, planes=self.planes, isa=isa)
        op = native.op()
        return lambda x: op(x, *arguments)

    def __reduce__(self) -> tuple[Callable[[str], Path], tuple[str]]:
        return path_named, (self.name,)

    def __str__(self) -> str:
        return self.name


DENSE = Path("dense")
GATHER = Path("gather")
CERTIFIED_2 = Path("certified-2", planes=2)
CERTIFIED_1 = Path("certified-1", planes=1)
TRITON = Path("triton")  # on a GPU; `gpu/execution.py` runs it
PATHS = {path.name: path for path in (DENSE, CERTIFIED_2, CERTIFIED_1, GATHER, TRITON)}


class Shares(NamedTuple):
    """Shares of the (token, neuron) pairs that a path computes, and that fire; both in [0, 1]."""

    computed: float
    fired: float


SharesByPath = Mapping[Path, Shares]


def path_named(name: str) -> Path:
    """The path of this name.

    Raises:
        KeyError: there is none.
    """
    return PATHS[name]


def sparse_paths() -> tuple[Path, ...]:
    """The sparse paths that run here."""
    return (GATHER,) if choose(plain="gather").operators is None else (CERTIFIED_2, CERTIFIED_1)
