"""Which commit each part of a benchmark was measured at: interrupted runs go on, and parts are measured anew."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from lazyneuron.core.environment import environment, short_commit
from lazyneuron.core.record import Record


def commits_of(record: Record | None, parts: Iterable[str]) -> dict[str, str]:
    """The commit of each part.

    Args:
        record: of the run that these parts are kept from; None for none.
        parts: names of what it holds.

    Returns:
        What its data say under ``commits``; the record's own commit for parts that it does not name.
    """
    if record is None:
        return {}
    known: Mapping[str, str] = record.data.get("commits", {})
    return {part: known.get(part, record.environment.commit) for part in parts}


def commit_now() -> str:
    """The commit of what is measured now."""
    return environment().commit


def elsewhere(record: Record, parts: Iterable[str]) -> str:
    """A sentence for each other commit than the record's, with the parts that were measured there; may be empty."""
    found: dict[str, list[str]] = {}
    for part, commit in commits_of(record, parts).items():
        if commit != record.environment.commit:
            found.setdefault(commit, []).append(part)
    return " ".join(f"At commit {short_commit(commit)}: {', '.join(parts)}." for commit, parts in found.items())
