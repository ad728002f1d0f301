"""What a sweep trains: a function of its settings, known by name so that other processes can call it."""

from __future__ import annotations

import importlib
import inspect
import math
import sys
import time
from collections.abc import Callable, Mapping
from numbers import Real
from pathlib import Path
from typing import Any

from lazyneuron.core.errors import ConfigError, DataError
from lazyneuron.experiments.sweep.journal import Finished
from lazyneuron.experiments.sweep.settings import Setting

Task = Callable[..., Mapping[str, Any]]


def _digits() -> Task:
    from lazyneuron.experiments.training.digits_point import train_point

    return train_point


#: Name -> imports and returns the function.
BUILT_IN: dict[str, Callable[[], Task]] = {"digits": _digits}


def load_task(name: str) -> Task:
    """The function of a name: a built-in one, or ``package.module:callable``; the current folder is looked into.

    Raises:
        ConfigError: there is none.
    """
    if name in BUILT_IN:
        return BUILT_IN[name]()
    module, sign, attribute = name.partition(":")
    if not sign or not module or not attribute:
        raise ConfigError(f"A task is {', '.join(BUILT_IN)}, or package.module:callable, got {name!r}.")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"There is no task {name!r} ({error}); it is looked for in {here} too.") from error
    if not callable(found):
        raise ConfigError(f"{name!r} is a {type(found).__name__}, not a function that trains a point.")
    task: Task = found
    return task


def check_settings(task: Task, name: str, settings: Mapping[str, Setting]) -> None:
    """Make sure that the task takes these settings, before anything is trained.

    Raises:
        ConfigError: it does not.
    """
    try:
        inspect.signature(task).bind(**settings)
    except TypeError as error:
        known = ", ".join(inspect.signature(task).parameters) or "none"
        raise ConfigError(f"The task {name} does not take these settings ({error}); it takes {known}.") from error


def try_point(task: Task, name: str, settings: Mapping[str, Setting]) -> Finished:
    """Train one point; a failure is part of the result."""
    start = time.perf_counter()
    try:
        density, quality, facts = _numbers(task(**settings))
    except Exception as error:  # whatever a task does wrong, the other points go on
        text = f"{type(error).__name__}: {error}"
        return Finished(task=name, settings=settings, error=text, seconds=time.perf_counter() - start)
    seconds = time.perf_counter() - start
    return Finished(task=name, settings=settings, density=density, quality=quality, facts=facts, seconds=seconds)


def _numbers(result: Any) -> tuple[float, float, dict[str, Any]]:
    if not isinstance(result, Mapping) or not {"density", "quality"} <= set(result):
        got = list(result) if isinstance(result, Mapping) else type(result).__name__
        raise DataError(f"A task returns a mapping with 'density' and 'quality', got {got}.")
    density, quality = result["density"], result["quality"]
    if not isinstance(density, Real) or not 0 <= float(density) <= 1:
        raise DataError(f"A density is a fraction in [0, 1], got {density!r}.")
    if not isinstance(quality, Real) or not math.isfinite(float(quality)):
        raise DataError(f"A quality is a finite number, larger for better, got {quality!r}.")
    facts = {k: v for k, v in result.items() if k not in ("density", "quality") and _plain(v)}
    return float(density), float(quality), facts


def _plain(value: Any) -> bool:
    """Can it stand in JSON as it is?"""
    return value is None or isinstance(value, str | int) or (isinstance(value, float) and math.isfinite(value))
