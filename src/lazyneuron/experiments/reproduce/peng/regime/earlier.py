"""Rows of an earlier record whose trainings a folder does not hold, so that a table can go on when a folder is lost."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from lazyneuron.core.environment import Environment, short_commit
from lazyneuron.core.errors import MALFORMED, ConfigError, said
from lazyneuron.core.record import Record
from lazyneuron.experiments.experiment import Finding, band
from lazyneuron.experiments.reproduce.peng.regime.course import Look
from lazyneuron.experiments.reproduce.peng.regime.table import sentence, unfinished

COMMIT = "commit"  # the column that says where a row comes from
Courses = Mapping[str, Sequence[Sequence[Look]]]  # of a training with this name, for each seed
Row = Mapping[str, Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Earlier:
    """What stays of a record, as it stands there.

    Attributes:
        rows, factors, blocks: all say the commit of the record that had them first.
        parts: for each of these commits ``measured``, where that was, and ``looks``, the courses of its rows in order.
    """

    rows: Sequence[Row] = ()
    factors: Sequence[Row] = ()
    blocks: Sequence[Row] = ()
    parts: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)

    def names(self) -> set[str]:
        """Of its trainings."""
        return {name for part in self.parts.values() for name in part["looks"]}

    def curves(self, trained: str) -> list[dict[str, Any]]:
        """Density over steps of the rows that were trained in a way."""
        courses = [courses for part in self.parts.values() for courses in part["looks"].values()]
        return [_curve(row, each) for row, each in zip(self.rows, courses, strict=True) if row["trained"] == trained]


def short(environment: Environment) -> str:
    """A commit as in tables."""
    return short_commit(environment.commit)


def what_stays(record: Record | None, here: Courses) -> Earlier:
    """The rows of a record that have begun and whose trainings are not in a folder.

    A training is in the folder if both courses begin alike: the numbers of another text, or of another processor, are
    others from the first look on.

    Args:
        record: of the same experiment; it may have such rows of a record before it.
        here: the folder's courses, rounded as in records.

    Raises:
        ConfigError: the record's rows cannot be told apart, or have no courses.
    """
    if record is None:
        return Earlier()
    try:
        return _what_stays(record, here)
    except MALFORMED as error:
        raise ConfigError(f"The earlier record has no courses that its rows belong to ({said(error)}).") from error


def _what_stays(record: Record, here: Courses) -> Earlier:
    data, settings = record.data, record.data["settings"]
    own, runs = short(record.environment), settings["runs"]
    measured = f"{_machine(record.environment)}, {_text(settings['bytes'])}"
    parts: dict[str, Mapping[str, Any]] = {}
    rows: list[Row] = []
    for commit, part in {own: {"measured": measured, "looks": runs["looks"]}, **runs.get("earlier", {})}.items():
        theirs = [row for row in data["rows"] if row.get(COMMIT, own) == commit]
        named = dict(zip(part["looks"], theirs, strict=True))
        stay = {n: row for n, row in named.items() if row["steps"] and not _is_here(part["looks"][n], here.get(n, ()))}
        if stay:
            rows += [{**row, COMMIT: commit} for row in stay.values()]
            parts[commit] = {"measured": part["measured"], "looks": {name: part["looks"][name] for name in stay}}
    wanted = {(_named(row), row[COMMIT]) for row in rows}
    factors, blocks = (
        [{**row, COMMIT: row.get(COMMIT, own)} for row in found] for found in (runs["factors"], runs.get("blocks", ()))
    )
    return Earlier(
        rows=rows,
        factors=[row for row in factors if (_named(row), row[COMMIT]) in wanted],
        blocks=[row for row in blocks if (_named(row), row[COMMIT]) in wanted],
        parts=parts,
    )


def beside(found: Finding, earlier: Earlier, here: Environment) -> Finding:
    """What a folder shows, followed by what stays of a record; every row says its commit.

    Args:
        found: the folder's part; what has not begun there and stays of the record is left out of it.
        earlier: what stays.
        here: where the folder's part was made.

    Raises:
        ConfigError: both were made at one commit.
    """
    if not earlier.rows:
        return found
    commit, runs = short(here), found.facts["runs"]
    if commit in earlier.parts:
        raise ConfigError(f"The earlier record has rows of {commit} that this folder does not hold; commit first.")

    def mine(rows: Sequence[Row]) -> list[Row]:
        return [{**row, COMMIT: commit} for row in rows]

    shown = [
        (name, row)
        for name, row in zip(runs["looks"], found.rows, strict=True)
        if row["steps"] or row["diverged"] or name not in earlier.names()
    ]
    rows = [row for _, row in shown]
    missing = unfinished(rows, found.facts["seeds"]) + unfinished(earlier.rows, 1)
    together = {name: [*mine(runs[name]), *getattr(earlier, name)] for name in ("factors", "blocks")}
    looks = {name: runs["looks"][name] for name, _ in shown}
    places = {name: part["measured"] for name, part in earlier.parts.items()}
    return dataclasses.replace(
        found,
        rows=(every := [*mine(rows), *earlier.rows]),
        curves=[*found.curves, *earlier.curves(found.rows[0]["trained"])],
        sentence=sentence(every, missing),
        facts={**found.facts, "earlier rows": places, "runs": {**together, "looks": looks, "earlier": earlier.parts}},
    )


def _curve(row: Row, courses: Sequence[Sequence[Look]]) -> dict[str, Any]:
    runs = [course for course in courses if course and course[-1]["step"] >= row["steps"]]
    shared = set.intersection(*({look["step"] for look in course} for course in runs))
    steps = sorted(step for step in shared if step <= row["steps"])
    densities = [[look["density"] for look in course if look["step"] in steps] for course in runs]
    return band(f"{row['variant']} @ {row[COMMIT][:7]}", x=steps, runs=densities)


def _is_here(theirs: Sequence[Sequence[Look]], mine: Sequence[Sequence[Look]]) -> bool:
    """Whether all courses of a training that a record has begin as those that the folder has."""
    return all(
        seed < len(mine) and bool(mine[seed]) and all(a == b for a, b in zip(course, mine[seed], strict=False))
        for seed, course in enumerate(theirs)
        if course
    )


def _named(row: Row) -> tuple[str, str, str]:
    return row["task"], row["trained"], row["variant"]


def _machine(at: Environment) -> str:
    return f"torch {at.torch}, {at.processor} with {', '.join(at.isa)}"


def _text(found: Mapping[str, int] | None) -> str:
    return "no text" if found is None else f"a text of {found['train']:,} bytes"
