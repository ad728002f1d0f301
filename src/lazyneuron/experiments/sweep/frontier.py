"""Which points of a sweep no other one beats."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from lazyneuron.core.errors import DataError
from lazyneuron.core.record import Record
from lazyneuron.experiments.sweep.journal import Finished
from lazyneuron.experiments.sweep.settings import Setting, key_of, words_for


def pareto(points: Sequence[tuple[float, float]]) -> list[int]:
    """The points that no other one beats: none is at most as dense and at least as good, and better in one of both.

    Args:
        points: density (less is better) and quality (more is better) of each.

    Returns:
        Their places, from the sparsest to the best; of equal points the first.

    Example:
        >>> pareto([(0.4, 0.9), (0.2, 0.8), (0.3, 0.7)])
        [1, 0]
    """
    found: list[int] = []
    best = -float("inf")
    for place in sorted(range(len(points)), key=lambda k: (points[k][0], -points[k][1], k)):
        if points[place][1] > best:
            found.append(place)
            best = points[place][1]
    return found


def sweep_record(results: Sequence[Finished], *, quality: str = "quality") -> Record:
    """A sweep as a record of kind ``"sweep"``: means over the setting ``seed``, with the Pareto points named.

    Args:
        results: what :func:`lazyneuron.experiments.sweep.sweep` returned.
        quality: what the quality is, for titles.

    Raises:
        DataError: no point was finished.
    """
    groups: dict[str, list[Finished]] = {}
    for result in results:
        if result.error is None:
            rest = {name: value for name, value in result.settings.items() if name != "seed"}
            groups.setdefault(key_of(rest), []).append(result)
    failed = [f"{words_for(r.settings)}: {r.error}" for r in results if r.error is not None]
    if not groups:
        raise DataError(f"None of the {len(failed)} points was finished; the first says: {failed[0]}")
    rows = [_row(group) for group in groups.values()]
    told = _varying([row["settings"] for row in rows])
    for row in rows:
        row["name"] = words_for({name: value for name, value in row["settings"].items() if name in told})
    front = pareto([(row["density"], row["quality"]) for row in rows])
    for place, row in enumerate(rows):
        row["pareto"] = place in front
    data = {
        "task": results[0].task,
        "quality": quality,
        "rows": rows,
        "frontier": [rows[place]["name"] for place in front],
        "failed": failed,
        "seconds": sum(r.seconds for r in results),
    }
    return Record(kind="sweep", data=data, seed=None)


def _row(group: Sequence[Finished]) -> dict[str, Any]:
    settings = {name: value for name, value in group[0].settings.items() if name != "seed"}
    densities = [r.density for r in group if r.density is not None]
    qualities = [r.quality for r in group if r.quality is not None]
    return {
        "name": "",
        "settings": settings,
        "seeds": len(group),
        "density": _mean(densities),
        "density_low": min(densities),
        "density_high": max(densities),
        "quality": _mean(qualities),
        "quality_low": min(qualities),
        "quality_high": max(qualities),
    }


def _mean(values: Sequence[float]) -> float:
    """To six digits, all that float32 has: of runs that are equally good none is a Pareto point by rounding."""
    return float(f"{statistics.fmean(values):.6g}")


def _varying(settings: Sequence[Mapping[str, Setting]]) -> set[str]:
    """The settings that tell the points apart; all of them if there is one point only."""
    names = {name for each in settings for name in each}
    found = {name for name in names if len({repr(each.get(name)) for each in settings}) > 1}
    return found or names
