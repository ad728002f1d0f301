"""What is measured, beside which engine, and what is to be reached."""

from __future__ import annotations

import dataclasses
import fnmatch
from collections.abc import Sequence

from lazyneuron.core.errors import ConfigError
from lazyneuron.experiments.bench.generation.shapes import LLAMA_1B, NARROW, OPT, SMALL, SMALL_PLAIN, TINYLLAMA, Shape

OURS, EVERY, COMPILED, EAGER = "ours", "ours, every neuron", "ours, compiled", "Hugging Face, bfloat16"
ONE, PREFILL, FOUR, CALLS = "one sequence", "prefill of 256", "4 sequences", "time outside kernels"
_FORMATS = (("int8", "int8"), ("int4", "int4"), ("keep", "int8"))
_DENSITIES = (0.05, 0.30, 1.0)
_OUTSIDE_MS = 4.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """One model as it is decoded.

    Attributes:
        shape: its sizes.
        weights, rest: formats, as ``accelerate_`` takes them; both ``"keep"`` is the model as it is.
        density: share of the neurons that fire; ``.30`` of a gated block is a thresholded SiLU, all else a ReLU.
        compiled: measure it under ``torch.compile`` too.
    """

    shape: Shape
    weights: str
    rest: str
    density: float
    compiled: bool = False

    @property
    def name(self) -> str:
        """As ``--only`` matches it."""
        return f"{self.shape.name}/{self.weights}/{self.rest}/{self.density:.2f}"

    @property
    def peer(self) -> str | None:
        """The engine and the format at the same bits; kept blocks stand beside 8 bits."""
        if self.weights == self.rest == "keep" or self.shape is NARROW:
            return None
        if self.shape.family == "opt":
            return None if self.weights == "int4" else "CTranslate2 int8"
        return "llama.cpp Q4_0" if self.weights == "int4" else "llama.cpp Q8_0"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Goal:
    """A ratio of tokens a second that is to be reached; an empty tuple matches everything."""

    engine: str
    over: str
    part: str
    at_least: float
    shapes: tuple[Shape, ...] = ()
    weights: tuple[str, ...] = ()
    densities: tuple[float, ...] = ()

    def matches(self, case: Case, part: str, engine: str) -> bool:
        """Is it about this row?"""
        return (
            (self.engine, self.part) == (engine, part)
            and (not self.shapes or case.shape in self.shapes)
            and (not self.weights or case.weights in self.weights)
            and (not self.densities or case.density in self.densities)
        )


def _over_peer(
    shape: Shape, weights: str, at_least: float, *, part: str = ONE, density: tuple[float, ...] = (0.05,)
) -> Goal:
    return Goal(
        engine=OURS, over="peer", part=part, at_least=at_least, shapes=(shape,), weights=(weights,), densities=density
    )


GOALS: tuple[Goal, ...] = (
    _over_peer(TINYLLAMA, "int8", 1.8),
    _over_peer(TINYLLAMA, "int4", 1.5),
    _over_peer(TINYLLAMA, "keep", 1.5),
    _over_peer(TINYLLAMA, "int8", 1.25, density=(0.30,)),
    _over_peer(TINYLLAMA, "int4", 1.15, density=(0.30,)),
    _over_peer(LLAMA_1B, "int8", 1.4),
    _over_peer(LLAMA_1B, "int4", 1.3),
    _over_peer(OPT, "int8", 1.25),
    *(
        _over_peer(shape, weights, 1.5, part=PREFILL)
        for shape in (TINYLLAMA, LLAMA_1B)
        for weights in ("int8", "int4")
    ),
    Goal(engine=OURS, over=EVERY, part=ONE, at_least=0.95, densities=(1.0,)),
    Goal(
        engine=EVERY, over="peer", part=ONE, at_least=0.95, densities=(1.0,), weights=("int8", "int4"),
        shapes=(TINYLLAMA, LLAMA_1B),
    ),
    Goal(engine=OURS, over=EVERY, part=FOUR, at_least=1.0, weights=("int8",)),
    Goal(engine=COMPILED, over=OURS, part=ONE, at_least=1.0, shapes=(TINYLLAMA, LLAMA_1B, OPT)),
)  # fmt: skip


def goal_for(case: Case, part: str, engine: str) -> Goal | None:
    """What a row is to reach, or None."""
    return next((goal for goal in GOALS if goal.matches(case, part, engine)), None)


def most_ms(case: Case) -> float | None:
    """The most time a token may take in a model so narrow that nothing but calls is left, or None."""
    return _OUTSIDE_MS if case.shape is NARROW and case.rest != "keep" else None


def full() -> tuple[Case, ...]:
    """Every case."""
    found = [
        Case(
            shape=shape,
            weights=weights,
            rest=rest,
            density=density,
            compiled=shape is TINYLLAMA and density == _DENSITIES[0],
        )
        for shape in (TINYLLAMA, LLAMA_1B, OPT)
        for weights, rest in _FORMATS
        for density in _DENSITIES
    ]
    found.append(Case(shape=TINYLLAMA, weights="keep", rest="keep", density=0.05))
    return (*found, *_narrow())


def quick() -> tuple[Case, ...]:
    """Small shapes, a minute or so."""
    facts = [
        (SMALL, "int8", "int8", 0.05),
        (SMALL, "int4", "int4", 0.05),
        (SMALL, "keep", "int8", 0.05),
        (SMALL, "int8", "int8", 0.30),
        (SMALL, "int8", "int8", 1.0),
        (SMALL_PLAIN, "int8", "int8", 0.05),
    ]
    found = [Case(shape=shape, weights=weights, rest=rest, density=d) for shape, weights, rest, d in facts]
    return (*found, *_narrow(compiled=False))


def _narrow(*, compiled: bool = True) -> tuple[Case, ...]:
    return (
        Case(shape=NARROW, weights="int8", rest="int8", density=0.05, compiled=compiled),
        Case(shape=NARROW, weights="keep", rest="keep", density=0.05),
    )


def chosen(cases: Sequence[Case], only: Sequence[str]) -> tuple[Case, ...]:
    """The cases whose names match one of these patterns (``*`` for anything) or contain it; all without patterns.

    Raises:
        ConfigError: a pattern matches none.
    """
    patterns = [f"*{pattern}*" for pattern in only]
    for given, pattern in zip(only, patterns, strict=True):
        if not fnmatch.filter([case.name for case in cases], pattern):
            raise ConfigError(f"No case matches {given!r}; there are {', '.join(case.name for case in cases)}.")
    return tuple(c for c in cases if not only or any(fnmatch.fnmatchcase(c.name, pattern) for pattern in patterns))
