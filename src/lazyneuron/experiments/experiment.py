"""What an experiment is: a name, how to run it here, and what the documentation shows of its record."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from lazyneuron.core.errors import ConfigError
from lazyneuron.core.record import Record

Kind = Literal["reproduce", "benchmark", "demo", "sweep"]
SEED = 0  # of every benchmark


@dataclasses.dataclass(frozen=True, kw_only=True)
class Request:
    """What a user asked for.

    Attributes:
        data: a folder with the published experiment's own data, or None for data that every machine has.
        seeds: how many runs of each variant.
        quick: a much smaller run, which says so.
        folder: where an experiment that keeps its models puts them; None takes the user's cache folder.
        so_far: train nothing, show what the folder holds; of experiments whose trainings take days.
        with_plain: train what is compared once more without its recipe, where an experiment offers that.
        pack: train what can be packed once more with packed activations, where an experiment offers that.
        device: where trainings run; on anything but the CPU those that have a larger size take it.
        steps: of the trainings that take days, in place of what they are planned for.
        begun: the record of an earlier run; benchmarks of several parts go on from there when it was interrupted, and
            tables of trainings that take days keep its rows.
        advance: told the share that is done, and what is going on.
        only: patterns of the names of cases; a benchmark of many cases measures these alone, anew.
        peers_python: the interpreter that has the packages of other engines; None takes this one.
        keep: given the record so far after every part of a long benchmark, so that an interrupted run keeps it.
    """

    data: Path | None = None
    seeds: int = 3
    quick: bool = False
    folder: Path | None = None
    so_far: bool = False
    with_plain: bool = False
    pack: bool = False
    device: str = "cpu"
    steps: int | None = None
    begun: Record | None = None
    only: tuple[str, ...] = ()
    peers_python: Path | None = None
    advance: Callable[[float, str], None] = lambda share, note: None
    keep: Callable[[Record], None] = lambda record: None

    def __post_init__(self) -> None:
        if self.seeds < 1:
            raise ConfigError(f"At least one seed is needed, got {self.seeds}.")

    @property
    def large(self) -> bool:
        """Whether to train at the larger size."""
        return not self.quick and self.device != "cpu"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Experiment:
    """One published table or figure, one benchmark, the demo or the sweep: whatever has a committed record.

    Attributes:
        name: what the command line calls it; its record is ``records/<name>.json``.
        title: one line.
        run: makes the record.
        kind: which command runs it.
        source: paper and place.
        differs: what is not as in the paper.
        sections: page, from the project's folder -> what it shows of the record, as Markdown; ``page#name`` is the
            place that the page marks so. Every published table has a section in ``docs/reproduce.md`` besides.
        figures: file in ``docs/assets`` -> draws it.
        seeds: runs of each variant unless the user asks for another number.
    """

    name: str
    title: str
    run: Callable[[Request], Record]
    kind: Kind = "reproduce"
    source: str = "ours"
    differs: str = ""
    sections: Mapping[str, Callable[[Record], str]] = dataclasses.field(default_factory=dict)
    figures: Mapping[str, Callable[[Record, Path], None]] = dataclasses.field(default_factory=dict)
    seeds: int = 3


@dataclasses.dataclass(frozen=True, kw_only=True)
class Finding:
    """What a published experiment found here; its table and its figure are made from it.

    Attributes:
        rows: of the table; ``paper`` holds what was published, None where it is not known.
        curves: ``label``, ``x``, ``y`` and perhaps ``low`` and ``high`` of each line.
        sentence: what the figure shows, made from the numbers.
        axes: titles of x and y.
        facts: settings.
        logarithmic: which axes are, ``"x"``, ``"y"`` or ``"xy"``.
    """

    rows: Sequence[Mapping[str, Any]]
    curves: Sequence[Mapping[str, Any]]
    sentence: str
    axes: tuple[str, str]
    facts: Mapping[str, Any]
    logarithmic: str = ""


def published(
    *,
    name: str,
    title: str,
    source: str,
    differs: str,
    run: Callable[[Request], Finding],
    sections: Mapping[str, Callable[[Record], str]] | None = None,
    seeds: int = 3,
) -> Experiment:
    """An experiment of kind ``"reproduce"``, from a function that finds something."""

    def record(request: Request) -> Record:
        found = run(request)
        data = {
            "experiment": name,
            "rows": [dict(row) for row in found.rows],
            "curves": [dict(curve) for curve in found.curves],
            "finding": found.sentence,
            "settings": {**found.facts, "quick": request.quick},
            "differs": differs,
            "axes": list(found.axes),
            "logarithmic": found.logarithmic,
        }
        return Record(kind="reproduce", data=data, seed=SEED)

    return Experiment(
        name=name, title=title, source=source, differs=differs, run=record, sections=sections or {}, seeds=seeds
    )


def band(label: str, *, x: Sequence[float], runs: Sequence[Sequence[float]]) -> dict[str, Any]:
    """A curve for :class:`Finding`: the mean over several runs, between the lowest and the highest.

    Args:
        label: of the curve.
        x: where the runs were measured.
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


def benchmark_record(name: str, *, title: str, **data: Any) -> Record:
    """The record of a benchmark: ``rows`` and whatever else ``data`` has."""
    return Record(kind=f"benchmark/{name}", data={"title": title, **data}, seed=SEED)
