"""What the grid's record says in one line: against whom, how fast, and how often it falls short."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lazyneuron.core.record import Record
from lazyneuron.experiments.bench.blocks.goals import read_goals, shortfalls

_DENSITY = 0.05


def reached(record: Record) -> str:
    """One item of a list; nothing when the record has no row of one token."""
    rows = record.data["rows"]
    chosen = [row for row in rows if row.get("tokens") == 1 and row.get("density") == _DENSITY]
    spans = [_span(chosen, column, name) for column, name in (("vs_dense", "dense"), ("vs_int8", "dynamic int8"))]
    if not any(spans):
        return ""
    goals = read_goals()
    missed = shortfalls(rows, goals)
    return (
        f"- **One MLP block, exact, one token, {_DENSITY:g} of its neurons firing** (random weights, every size, dtype "
        f"and thread count of the grid): {', '.join(filter(None, spans))}. {len(missed)} rows of the grid miss one of "
        f"{len(goals)} goals, and are listed [below](#what-falls-short).\n"
    )


def _span(rows: Sequence[Mapping[str, Any]], column: str, name: str) -> str:
    found = sorted(row[column] for row in rows if row.get(column) is not None)
    if not found:
        return ""
    return f"{found[0]:.2f} to {found[-1]:.2f} times as fast as torch's {name}"
