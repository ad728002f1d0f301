"""What an experiment is: an identifier, what was published, and how to run it here."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lazyneuron.core.errors import ConfigError
from lazyneuron.core.record import Record


@dataclasses.dataclass(frozen=True, kw_only=True)
class Request:
    """What a user asked for.

    Attributes:
        data: a folder with the published experiment's own data, or None for data that every machine has.
        seeds: how many runs of each variant.
        quick: a much smaller run, which says so.
        device: where trainings run; on anything but the CPU those that have a larger size take it.
        advance: told the share that is done, and what is going on.
    """

    data: Path | None = None
    seeds: int = 3
    quick: bool = False
    device: str = "cpu"
    advance: Callable[[float, str], None] = lambda share, note: None

    def __post_init__(self) -> None:
        if self.seeds < 1:
            raise ConfigError(f"At least one seed is needed, got {self.seeds}.")

    @property
    def large(self) -> bool:
        """Whether to train at the larger size."""
        return not self.quick and self.device != "cpu"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Experiment:
    """One published table or figure.

    Attributes:
        name: what the command line calls it.
        title: one line.
        source: paper and place.
        differs: what is not as in the paper.
        run: makes the record, of kind ``"reproduce"``.
    """

    name: str
    title: str
    source: str
    differs: str
    run: Callable[[Request], Record]


def record_of(
    experiment: str,
    *,
    rows: Sequence[Mapping[str, Any]],
    curves: Sequence[Mapping[str, Any]],
    says: str,
    facts: Mapping[str, Any],
    differs: str,
    axes: tuple[str, str],
    logarithmic: str = "",
) -> Record:
    """The record that tables and figures are made from.

    Args:
        experiment: its name.
        rows: of the table; ``paper`` holds what was published, None where it is not known.
        curves: ``label``, ``x``, ``y`` and perhaps ``low`` and ``high`` of each line.
        says: the sentence that the figure shows, made from the numbers.
        facts: settings.
        differs: what is not as in the paper.
        axes: titles of x and y.
        logarithmic: which axes are, ``"x"``, ``"y"`` or ``"xy"``.
    """
    data = {
        "experiment": experiment,
        "rows": [dict(row) for row in rows],
        "curves": [dict(curve) for curve in curves],
        "says": says,
        "settings": dict(facts),
        "differs": differs,
        "axes": list(axes),
        "logarithmic": logarithmic,
    }
    return Record(kind="reproduce", data=data, seed=0)


def band(label: str, *, x: Sequence[float], runs: Sequence[Sequence[float]]) -> dict[str, Any]:
    """A curve for :func:`record_of`: the mean over several runs, between the lowest and the highest.

    Args:
        label: of the curve.
        x: where the runs were looked at.
        runs: the values of each, all at the same places.
    """
    columns = list(zip(*runs, strict=True))
    return {
        "label": label,
        "x": list(x),
        "y": [statistics.mean(column) for column in columns],
        "low": [min(column) for column in columns],
        "high": [max(column) for column in columns],
    }
