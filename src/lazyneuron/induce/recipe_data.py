"""The fields of a recipe as JSON-able data, and back by the types that the class declares."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any

from lazyneuron.blocks.activation import Activation
from lazyneuron.core.arguments import described
from lazyneuron.core.errors import ConfigError
from lazyneuron.induce.training.schedule import Schedule, schedule_from_data, schedule_to_data


def field_types(kind: Any) -> dict[str, Any]:
    """The declared types of a dataclass's fields, by name.

    Raises:
        ConfigError: an annotation cannot be resolved.
    """
    try:
        hints = typing.get_type_hints(kind)
    except (NameError, TypeError) as error:
        raise ConfigError(
            f"The annotations of {kind.__name__} cannot be resolved ({error}); import the types."
        ) from error
    return {field.name: hints[field.name] for field in dataclasses.fields(kind)}


def spelled(activation: Activation) -> list[object]:
    """Kind and parameters in one list."""
    return [activation.kind, *activation.parameters]


def field_to_data(value: Any) -> Any:
    """JSON-able form of a field's value.

    Raises:
        ConfigError: a value of a kind that is not saved.
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Activation):
        return spelled(value)
    if isinstance(value, Schedule):
        return schedule_to_data(value)
    if isinstance(value, list | tuple):
        return [field_to_data(item) for item in value]
    if isinstance(value, Mapping):
        return {str(key): field_to_data(item) for key, item in value.items()}
    if hasattr(value, "to_data"):
        return value.to_data()
    raise ConfigError(
        "A recipe's fields hold numbers, texts, activations, schedules, recipes, and tuples and mappings of them, got "
        f"{described(value)}; leave it out."
    )


def field_from_data(kind: Any, value: Any, *, recipe: Callable[[Mapping[str, Any]], Any]) -> Any:
    """The value of a declared type that :func:`field_to_data` wrote.

    Args:
        kind: the declared type.
        value: JSON-able.
        recipe: reads a recipe.
    """
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if isinstance(value, Mapping) and "config" in value:
        return recipe(value)
    if isinstance(value, Mapping) and "schedule" in value:
        return schedule_from_data(value)
    if origin in (typing.Union, types.UnionType) and isinstance(value, list | Mapping):
        structured = [part for part in parts if part is Activation or typing.get_origin(part) is not None]
        return field_from_data(structured[0], value, recipe=recipe)
    if kind is Activation:
        name, *parameters = value or ("",)
        wrong = [p for p in parameters if isinstance(p, bool) or not isinstance(p, int | float)]
        if not isinstance(name, str) or not name or wrong:
            raise TypeError(f"an activation is its name and numbers, got {value!r}")
        return Activation(name, tuple(parameters))
    if origin is tuple:
        if isinstance(value, str):
            raise TypeError(f"{value!r} is no list")
        items = (parts[0],) * len(value) if parts[1:] == (...,) else parts
        return tuple(field_from_data(part, item, recipe=recipe) for part, item in zip(items, value, strict=True))
    if isinstance(value, Mapping):
        return {str(key): field_from_data(parts[1], item, recipe=recipe) for key, item in value.items()}
    return value
