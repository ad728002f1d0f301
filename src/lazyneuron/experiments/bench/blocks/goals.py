"""Where a record falls short of the goals in ``goals.json``."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

Row = Mapping[str, Any]
FILE = Path(__file__).with_name("goals.json")
_TESTS: dict[str, tuple[Callable[[float, float], bool], str]] = {
    "at_least": (lambda value, limit: value >= limit, "at least"),
    "above": (lambda value, limit: value > limit, "above"),
    "at_most": (lambda value, limit: value <= limit, "at most"),
}


def read_goals(path: Path = FILE) -> list[Row]:
    """The goals, one a line of the file."""
    goals: list[Row] = json.loads(path.read_text(encoding="utf-8"))["goals"]
    return goals


def shortfalls(rows: Sequence[Row], goals: Iterable[Row]) -> list[dict[str, Any]]:
    """Every row that misses a goal, and every goal that no row was measured for.

    Args:
        rows: of a ``benchmark/accelerate`` record; those with the largest number of threads are looked at.
        goals: from :func:`read_goals`.

    Returns:
        ``case``, ``row``, ``column``, ``wanted`` and ``measured`` of each; ``measured`` is None for what has no figure.
    """
    most = max((row["threads"] for row in rows), default=0)
    found: list[dict[str, Any]] = []
    for goal in goals:
        limit_name = next(name for name in _TESTS if name in goal)
        met, words = _TESTS[limit_name]
        limit, column = goal[limit_name], goal["column"]
        wanted = f"{words} {limit:g}"
        matching = [row for row in rows if row["threads"] == most and matches(row, goal["where"])]
        if not matching:
            found.append({"case": goal["case"], "row": None, "column": column, "wanted": wanted, "measured": None})
        for row in matching:
            value = row.get(column)
            if value is None and "reason" not in row and column == "over_ceiling":
                continue  # dense was chosen, and the ceiling is that of a certified step
            if value is None or not met(value, limit):
                found.append(
                    {"case": goal["case"], "row": label(row), "column": column, "wanted": wanted, "measured": value}
                )
    return found


def matches(row: Row, where: Mapping[str, Sequence[Any]]) -> bool:
    """Does a row belong to a goal? ``gated`` and ``sparse`` are read off the shape and the density."""
    facts = dict(row) | {"gated": row["shape"].endswith("gated"), "sparse": row["density"] < 1}
    return all(facts[column] in values for column, values in where.items())


def label(row: Row) -> str:
    """A row in words."""
    tokens = f"{row['tokens']} token{'' if row['tokens'] == 1 else 's'}"
    return f"{row['shape']}, {row['dtype']}, {tokens}, density {row['density']:g}"
