"""Rows of engines on one model: which lie on the front of time against agreement, and their table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]


def front(rows: Sequence[Row], case: str) -> list[str]:
    """The engines that no other beats: one that is as fast and agrees as well, and is better in one of both.

    Agreement is the mean cosine with the original, to four digits: what differs less is rounding.

    Args:
        rows: of the demo or of the encoder benchmark.
        case: an input size.

    Returns:
        Their names, from the fastest on.
    """
    points = [(row["times"][case]["median_ms"], lost(row), row["engine"]) for row in rows if case in row["times"]]
    found: list[str] = []
    best = float("inf")
    for _, loss, name in sorted(points):
        if loss < best:
            found.append(name)
            best = loss
    return found


def lost(row: Row) -> float:
    """One minus the mean cosine, to four digits."""
    return round(1 - float(row["quality"]["mean_cosine"]), 4)


def table(rows: Sequence[Row], *, in_order: bool = False) -> list[dict[str, Any]]:
    """The rows for a table, a star where an engine is on the front.

    Args:
        rows: of the demo or of the encoder benchmark.
        in_order: leave their order; otherwise the fastest on the largest input comes first.
    """
    cases = list(dict.fromkeys(case for row in rows for case in row["times"]))
    on = {case: front(rows, case) for case in cases}
    largest = cases[-1] if cases else ""

    def place(row: Row) -> float:
        found: float = row["times"].get(largest, {}).get("median_ms", float("inf"))
        return found

    return [
        {
            "engine": row["engine"],
            "needs": row["needs"],
            **{f"{case} ms": _time(row, case, on[case]) for case in cases},
            "cosine": _agreed(row, "mean_cosine", 4),
            "same neighbour": _agreed(row, "top1_agreement", 3),
        }
        for row in (rows if in_order else sorted(rows, key=place))
    ]


def reasons(rows: Sequence[Row]) -> list[str]:
    """Why engines are missing, a sentence each."""
    return [f"{row['engine']} {row['note']}" for row in rows if row.get("note")]


def versions(rows: Sequence[Row]) -> str:
    """The other engines' versions and settings, a line each."""
    lines = {}
    for row in rows:
        if "facts" in row:
            facts = row["facts"]
            named = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
            settings = ", ".join(f"{name} {value}" for name, value in facts["settings"].items())
            lines[row["engine"]] = f"- {row['engine']}: {named}; {settings}."
    return "\n".join(lines.values())


def _time(row: Row, case: str, on: Sequence[str]) -> str:
    if case not in row["times"]:
        return "-"
    return f"{row['times'][case]['median_ms']:.3g}" + (" *" if row["engine"] in on else "")


def _agreed(row: Row, key: str, digits: int) -> str:
    return "-" if "quality" not in row else f"{row['quality'][key]:.{digits}f}"
