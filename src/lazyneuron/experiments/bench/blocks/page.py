"""A record of the grid as a page: what decides, what falls short, the baselines, the whole grid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lazyneuron.core.errors import DataError
from lazyneuron.core.record import Record
from lazyneuron.experiments.bench.blocks import view
from lazyneuron.experiments.bench.blocks.goals import read_goals, shortfalls
from lazyneuron.report import markdown_table, provenance
from lazyneuron.report.numbers import NOTHING

_COLUMN_NAMES = {"vs_dense": "vs dense", "vs_int8": "vs int8", "over_ceiling": "over ceiling"}


def grid_page(record: Record) -> str:
    """A ``benchmark/accelerate`` record as Markdown.

    Raises:
        DataError: the record was written by an older version.
    """
    rows = record.data["rows"]
    if not rows or any("threads" not in row for row in rows):
        raise DataError("The benchmark's record is of an older version; measure it again.")
    parts = [f"**{record.data['title']}**", provenance(record)]
    targets = view.target_rows(rows)
    if targets:
        parts += [
            "### Target cases",
            "Density 0.05; speed against dense unless a column says otherwise.",
            markdown_table(targets),
        ]
    parts += ["### What falls short", shortfalls_text(rows)]
    groups = view.baseline_groups(rows)
    if groups:
        parts += ["### Against other methods", "Speed against dense at each token count, quality from the same run."]
    for name, group in groups.items():
        parts += [
            f"**{name}**",
            markdown_table(view.baseline_rows(group)),
            "\n".join(f"- {r}" for r in view.reasons(group)),
        ]
    parts.append("### The whole grid")
    for name, group in view.grouped(rows).items():
        parts += [f"**{name}**", markdown_table(_without_empty([view.case_row(row) for row in group]))]
    return "\n\n".join(part for part in parts if part) + "\n"


def shortfalls_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows that miss a goal, goal by goal with the reason, or the sentence that there is none."""
    goals = read_goals()
    missed = shortfalls(rows, goals)
    if not missed:
        return "Every goal in `goals.json` is met."
    why = {goal["case"]: goal.get("why", "") for goal in goals}
    parts = [f"{len(missed)} rows miss one of the {len(goals)} goals in `goals.json`."]
    for case, column, wanted in dict.fromkeys((m["case"], m["column"], m["wanted"]) for m in missed):
        found = [m for m in missed if (m["case"], m["column"]) == (case, column)]
        parts.append(f"**{case}: {_COLUMN_NAMES[column]} {wanted}.** {why[case]}".strip())
        table = [{"row": m["row"] or "not measured", _COLUMN_NAMES[column]: m["measured"]} for m in found]
        parts.append(markdown_table(table))
    return "\n\n".join(parts)


def _without_empty(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Without the columns in which no row has anything."""
    empty = {key for key in rows[0] if all(row[key] in (None, NOTHING) for row in rows)}
    return [{key: value for key, value in row.items() if key not in empty} for row in rows]
