"""Each path of certified execution by itself, as a candidate of the benchmark."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import cast

from torch import Tensor

from lazyneuron.accelerate.machine import benchmark
from lazyneuron.accelerate.path import path_named
from lazyneuron.accelerate.slack.certificate import build_sketch
from lazyneuron.blocks import Activation
from lazyneuron.ops.choice import choose
from lazyneuron.ops.sparse_mlp import native
from lazyneuron.ops.sparse_mlp.packed import PackedBlock

Call = Callable[[Tensor], Tensor]
PATHS = ("certified-2", "certified-1")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Path:
    """One path and the shares that it counts while it runs.

    Attributes:
        run: the callable.
        counts: what the kernel adds to, or None for a path that counts nothing.
    """

    run: Call
    counts: Tensor | None


def at_density(packed: PackedBlock, density: float) -> PackedBlock:
    """The same weights as they are packed with the bias that makes this share fire; the sketch's integers stay."""
    moved = benchmark.with_bias(packed, benchmark.firing_bias(density))
    up = None if packed.up_rows is None else (packed.up_rows, packed.up_bias)
    activation = cast(Activation, packed.activation)  # of a block that was found, not a stranger of the operator's
    fresh = build_sketch(packed.first_rows, moved.first_bias, activation=activation, up=up)
    sketch = dataclasses.replace(packed.sketch, certificate=fresh.certificate)
    return dataclasses.replace(moved, sketch=sketch)


def usable_paths() -> dict[str, str | None]:
    """Path -> None when it runs here, else the reason why not."""
    reason = choose(plain="gather").reason
    if reason is None:
        return dict.fromkeys(PATHS)
    return dict.fromkeys(PATHS, reason) | {"gather": None}


def make_paths(packed: PackedBlock, names: list[str]) -> dict[str, Path]:
    """The paths that run here."""
    made = {}
    for name in names:
        counts = native.new_counts()
        call = path_named(name).runner(packed, counts)
        made[name] = Path(run=call, counts=None if name == "gather" else counts)
    return made
