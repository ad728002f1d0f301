"""How a number changes over the steps of a training: frozen objects with a value at each step."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from lazyneuron.core.errors import CheckpointError, ConfigError


@dataclasses.dataclass(frozen=True)
class Constant:
    """The same value at every step.

    Attributes:
        value: a finite number >= 0.
    """

    value: float

    def __post_init__(self) -> None:
        _check(self.value)

    def at(self, step: int | None) -> float:
        """The value; the step does not matter."""
        return self.value


@dataclasses.dataclass(frozen=True, kw_only=True)
class Linear:
    """From one value to another in a line, and that one from then on.

    Attributes:
        start, end: finite numbers >= 0.
        steps: length of the line, at least 1.
    """

    start: float
    end: float
    steps: int

    def __post_init__(self) -> None:
        _check(self.start, self.end, steps=self.steps)

    def at(self, step: int | None) -> float:
        """The value after ``step`` steps.

        Raises:
            ConfigError: there is no step.
        """
        way = min(_step(step) / self.steps, 1.0)
        return self.start + (self.end - self.start) * way


@dataclasses.dataclass(frozen=True, kw_only=True)
class Progressive:
    """A constant first stage, then stage after stage along half a cosine to the next value; the last one stays.

    The slow start of each stage lets the activations follow before the penalty grows on.

    Attributes:
        stages: (steps, value) of each stage.

    Example:
        >>> schedule = Progressive(stages=((10, 0.1), (20, 0.5)))
        >>> [round(schedule.at(step), 3) for step in (0, 9, 10, 20, 30, 99)]
        [0.1, 0.1, 0.1, 0.3, 0.5, 0.5]

    Source: Song et al., "ProSparse: Introducing and Enhancing Intrinsic Activation Sparsity within Large Language
        Models", 2024.
    """

    stages: tuple[tuple[int, float], ...]

    def __post_init__(self) -> None:
        if not self.stages:
            raise ConfigError("A progressive schedule has at least one stage (steps, value), got none.")
        for steps, value in self.stages:
            _check(value, steps=steps)

    def at(self, step: int | None) -> float:
        """The value after ``step`` steps.

        Raises:
            ConfigError: there is no step.
        """
        left, before = _step(step), self.stages[0][1]
        for steps, value in self.stages:
            if left < steps:
                return before + (value - before) * (1 - math.cos(math.pi * left / steps)) / 2
            left, before = left - steps, value
        return before


Schedule = Constant | Linear | Progressive


def schedule_to_data(schedule: Schedule) -> dict[str, Any]:
    """JSON-able description."""
    return {"schedule": type(schedule).__name__, **dataclasses.asdict(schedule)}


def schedule_from_data(data: Mapping[str, Any]) -> Schedule:
    """The schedule that :func:`schedule_to_data` described.

    Raises:
        CheckpointError: the data are no schedule.
    """
    try:
        arguments = dict(data)
        kind = {"Constant": Constant, "Linear": Linear, "Progressive": Progressive}[arguments.pop("schedule")]
        if "stages" in arguments:
            arguments["stages"] = tuple((steps, value) for steps, value in arguments["stages"])
        return kind(**arguments)  # type: ignore[no-any-return]
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"This is no schedule ({error}); pass what schedule_to_data wrote.") from error


def _check(*values: float, steps: int = 1) -> None:
    if not all(math.isfinite(v) and v >= 0 for v in values) or steps < 1:
        raise ConfigError(f"A schedule takes finite values >= 0 and stages of at least 1 step, got {values}, {steps}.")


def _step(step: int | None) -> int:
    if step is None or step < 0:
        raise ConfigError(f"This schedule needs the number of steps made, at least 0, got step={step}.")
    return step
