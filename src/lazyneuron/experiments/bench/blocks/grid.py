"""Which cases are measured: the default grid, the quick one, and one that a user asks for."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Sequence

from lazyneuron.core.errors import ConfigError
from lazyneuron.experiments.bench.blocks.baselines.registry import BASELINES
from lazyneuron.experiments.bench.blocks.case import DTYPES, MOST_TOKENS, Case, Shape, parse_shape

TOKENS = (1, 2, 4, 8, 16, 64, 128, 512)
DENSITIES = (1.0, 0.5, 0.3, 0.2, 0.1, 0.05, 0.02, 0.01)
_SMALL, _BASE, _MIDDLE, _LARGE = (Shape(d=d, hidden=4 * d) for d in (384, 768, 1024, 2048))
_GATED, _WIDE = Shape(d=2048, hidden=8192, gated=True), Shape(d=4096, hidden=14336, gated=True)
_FEW = (1.0, 0.1, 0.05, 0.02, 0.01)
_TWO = ("float32", "bfloat16")


def default_grid(threads: int) -> list[Case]:
    """Every shape, in float32 and bfloat16, and all baselines on one shape; twelve minutes or so on two cores."""
    cases = []
    for shape in (_SMALL, _BASE, _MIDDLE, _LARGE, _GATED):
        cases += _product([shape], _TWO, [t for t in TOKENS if t <= 16], DENSITIES, threads)
        many = [64, 128, 512] if shape not in (_LARGE, _GATED) else [64, 128]
        cases += _product([shape], _TWO, many, _FEW, threads)
    cases += _product([_LARGE], _TWO, [512], (1.0, 0.05, 0.02, 0.01), threads)
    cases += _product([_WIDE], _TWO, (1, 4, 16), (1.0, 0.1, 0.05, 0.02), threads)
    if threads > 1:
        cases += _product([_MIDDLE], _TWO, (1, 16, 128), (1.0, 0.1, 0.05), 1)
        cases += _product([_LARGE], _TWO, (1, 16), (0.05,), 1)
    everything = tuple(BASELINES)
    compared = {(c.tokens, c.density) for c in _product([_MIDDLE], _TWO, (1, 4, 16, 128), (0.1, 0.05), threads)}
    cases = [
        dataclasses.replace(c, against=everything)
        if c.shape == _MIDDLE and c.threads == threads and (c.tokens, c.density) in compared
        else c
        for c in cases
    ]
    return in_order(cases)


def quick_grid(threads: int) -> list[Case]:
    """Eight cases on one shape; half a minute."""
    return in_order(_product([_MIDDLE], _TWO, (1, 16), (1.0, 0.05), threads, against=("int8", "gather")))


def chosen_grid(
    *,
    threads: int,
    shapes: Sequence[str] = (),
    tokens: Sequence[int] = (),
    densities: Sequence[float] = (),
    dtypes: Sequence[str] = (),
    against: Sequence[str] = (),
) -> list[Case]:
    """Every combination of what a user names; what is not named is 1024x4096, 1 and 16 tokens, density 0.05, float32.

    Raises:
        ConfigError: a value without meaning.
    """
    for count in tokens:
        if not 1 <= count <= MOST_TOKENS:
            raise ConfigError(f"A token count is from 1 to {MOST_TOKENS}; got {count}.")
    for density in densities:
        if not 0 < density <= 1:
            raise ConfigError(f"A density is a share above 0 and up to 1; got {density:g}.")
    for dtype in dtypes:
        if dtype not in DTYPES:
            raise ConfigError(f"A dtype is one of {', '.join(DTYPES)}; got {dtype!r}.")
    for name in against:
        if name not in BASELINES and name != "all":
            raise ConfigError(f"A baseline is one of {', '.join(BASELINES)}, or all; got {name!r}.")
    names = tuple(BASELINES) if "all" in against else tuple(dict.fromkeys(against)) or ("int8",)
    parsed = [parse_shape(s) for s in shapes] or [_MIDDLE]
    cases = _product(parsed, dtypes or ["float32"], tokens or (1, 16), densities or (0.05,), threads, against=names)
    return in_order(cases)


def check_threads(threads: int, cores: int) -> None:
    """Refuse what the machine does not have.

    Raises:
        ConfigError: fewer than one thread or more than cores.
    """
    if not 1 <= threads <= cores:
        raise ConfigError(f"The number of threads is from 1 to {cores} on this machine; got {threads}.")


def in_order(cases: Iterable[Case]) -> list[Case]:
    """Without repetitions; cases that share weights stand together, and of these the ones that share compiled code."""
    unique = list(dict.fromkeys(cases))
    first = {key: k for k, key in reversed(list(enumerate(c.weights_key for c in unique)))}
    return sorted(unique, key=lambda c: (first[c.weights_key], c.tokens, -c.density))


def _product(
    shapes: Iterable[Shape],
    dtypes: Iterable[str],
    tokens: Iterable[int],
    densities: Iterable[float],
    threads: int,
    *,
    against: tuple[str, ...] = ("int8",),
) -> list[Case]:
    return [
        Case(shape=s, dtype=t, tokens=n, density=q, threads=threads, against=against)
        for s, t, n, q in itertools.product(shapes, dtypes, tokens, densities)
    ]
