"""The file of a sweep: a line of JSON for each point, written when it is done."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lazyneuron.core.errors import MALFORMED, ConfigError, DataError, said
from lazyneuron.core.record import write_text
from lazyneuron.experiments.sweep.settings import Setting, key_of


@dataclasses.dataclass(frozen=True, kw_only=True)
class Finished:
    """A point that was tried.

    Attributes:
        task: what was trained.
        settings: with which settings.
        density: share of hidden activations that are not zero; None if it failed.
        quality: larger is better; None if it failed.
        facts: what else the task returned.
        seconds: how long it took.
        error: why it failed, or None.
    """

    task: str
    settings: Mapping[str, Setting]
    density: float | None = None
    quality: float | None = None
    facts: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    seconds: float = 0.0
    error: str | None = None


class Journal:
    """Reads what is there, and appends.

    A last line that a kill left incomplete is cut off. Points that failed are forgotten, so that they are tried again.

    Raises:
        DataError: the file is no such file, or cannot be read or written.
        ConfigError: it is of another task.
    """

    def __init__(self, file: Path, *, task: str) -> None:
        self.file = file
        self.finished: dict[str, Finished] = {}
        try:
            text = file.read_text(encoding="utf-8") if file.exists() else ""
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"Cannot read {file} ({error}); name the file of a sweep, or a new one.") from error
        lines = text.split("\n")
        for number, line in enumerate(lines[:-1], start=1):
            point = self._read(line, number)
            if point.task != task:
                raise ConfigError(f"{file} is a sweep of {point.task}, not of {task}; name another file.")
            if point.error is None:
                self.finished[key_of(point.settings)] = point
        kept = "".join(_line(point) for point in self.finished.values())
        if kept != text:
            write_text(file, kept)

    def add(self, point: Finished) -> None:
        """Append a point, through to the disk."""
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            with self.file.open("a", encoding="utf-8") as file:
                file.write(_line(point))
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise DataError(f"Cannot write {self.file} ({error.strerror}); choose a folder you can write.") from error

    def _read(self, line: str, number: int) -> Finished:
        try:
            point = Finished(**json.loads(line))
            _check(point)
            return point
        except MALFORMED as error:
            raise DataError(
                f"Line {number} of {self.file} is no point of a sweep ({said(error)}); name another file."
            ) from error


def read_finished(file: str | Path, *, task: str) -> tuple[Finished, ...]:
    """All finished points in the file of a sweep, whichever calls made them.

    Args:
        file: the file.
        task: the task that it has to be of.

    Raises:
        DataError: the file is no such file.
        ConfigError: it is of another task.
    """
    return tuple(Journal(Path(file), task=task).finished.values())


def _check(point: Finished) -> None:
    """Raise an error unless this is a point that a sweep could have written."""
    _line(point)  # refuses NaN and infinity, wherever they are
    key_of(point.settings)
    if not isinstance(point.task, str) or not isinstance(point.facts, dict) or not isinstance(point.settings, dict):
        raise TypeError("its task, settings or facts are of the wrong kind")
    figures = [point.density, point.quality]
    if point.error is None and not all(isinstance(v, int | float) and not isinstance(v, bool) for v in figures):
        raise TypeError("its density or quality is no number")
    if point.density is not None and not 0 <= point.density <= 1:
        raise ValueError(f"a density lies in [0, 1], got {point.density}")
    if not isinstance(point.seconds, int | float) or not (point.error is None or isinstance(point.error, str)):
        raise TypeError("its time or error is of the wrong kind")


def _line(point: Finished) -> str:
    return json.dumps(dataclasses.asdict(point), allow_nan=False) + "\n"
