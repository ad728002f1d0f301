"""The points of a sweep: every combination of the values that are given for each setting."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence

from lazyneuron.core.errors import ConfigError

Setting = str | int | float | bool | None


def grid(values: Mapping[str, Sequence[Setting]]) -> list[dict[str, Setting]]:
    """All combinations, the last setting varying fastest.

    Args:
        values: what each setting takes, at least one value each.

    Returns:
        One dictionary a point, without repetitions.

    Raises:
        ConfigError: a setting has no value.
    """
    empty = [name for name, taken in values.items() if not len(taken)]
    if empty:
        raise ConfigError(f"The setting {empty[0]!r} has no value; give at least one.")
    points = [dict(zip(values, chosen, strict=True)) for chosen in itertools.product(*values.values())]
    return list({key_of(point): point for point in points}.values())


def read_settings(texts: Sequence[str]) -> dict[str, list[Setting]]:
    """Settings as a command line writes them: ``name=value,value``.

    Args:
        texts: one for each setting; a value is a number, ``true``, ``false`` or ``null`` as in JSON, else a word.

    Raises:
        ConfigError: a text is of another form, or a name comes twice.

    Example:
        >>> read_settings(["recipe=vanilla,target", "strength=0.1,null"])
        {'recipe': ['vanilla', 'target'], 'strength': [0.1, None]}
    """
    found: dict[str, list[Setting]] = {}
    for text in texts:
        name, sign, values = text.partition("=")
        if not sign or not name.isidentifier() or not all(values.split(",")):
            raise ConfigError(f"A setting is written name=value,value, got {text!r}.")
        if name in found:
            raise ConfigError(f"The setting {name!r} is given twice; put all its values behind one name.")
        found[name] = [_value(value) for value in values.split(",")]
    return found


def key_of(settings: Mapping[str, Setting]) -> str:
    """The same text for the same settings, in whatever order."""
    return json.dumps(dict(settings), sort_keys=True)


def words_for(settings: Mapping[str, Setting]) -> str:
    """The settings in words, as a point's name."""
    return ", ".join(f"{name} {value}" for name, value in settings.items() if value is not None) or "default"


def _value(text: str) -> Setting:
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return value if isinstance(value, int | float | bool) or value is None else text
