"""The file of a sweep: a line of JSON for each point, written when it is done."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lazyneuron.core.errors import ConfigError, DataError
from lazyneuron.core.record import write_text
from lazyneuron.sweep.settings import Setting, key_of


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
            return Finished(**json.loads(line))
        except (ValueError, TypeError) as error:
            raise DataError(
                f"Line {number} of {self.file} is no point of a sweep ({error}); name another file."
            ) from error


def _line(point: Finished) -> str:
    return json.dumps(dataclasses.asdict(point), allow_nan=False) + "\n"
