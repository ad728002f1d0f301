"""A measured result with its provenance, written as JSON; everything that the report room reads."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lazyneuron.core.environment import Environment, environment
from lazyneuron.core.errors import MALFORMED, CheckpointError, DataError, said

FORMAT = 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Record:
    """One measurement.

    Attributes:
        kind: what was measured, e.g. ``"demo"``, ``"benchmark/accelerate"``.
        data: JSON-able results; units are in the key names.
        seed: the seed of everything random in it, or None when nothing was.
        environment: where it was measured.
    """

    kind: str
    data: Mapping[str, Any]
    seed: int | None
    environment: Environment = dataclasses.field(default_factory=environment)

    def to_json(self) -> str:
        """This record as a JSON document."""
        return json.dumps({"format": FORMAT, **dataclasses.asdict(self)}, indent=1)

    @staticmethod
    def from_json(text: str) -> Record:
        """The record written by :meth:`to_json`.

        Raises:
            CheckpointError: the text is not such a document.
        """
        try:
            raw = json.loads(text)
            if raw.pop("format") != FORMAT:
                raise ValueError("unknown format number")
            facts = raw.pop("environment")
            record = Record(environment=Environment(**{**facts, "isa": tuple(facts["isa"])}), **raw)
            if not isinstance(record.kind, str) or not isinstance(record.data, dict):
                raise ValueError("its kind is no text, or its data are no table")
            record.to_json()  # what is nested too deeply can be read, but not written
            return record
        except MALFORMED as error:
            raise CheckpointError(
                f"This is not a lazyneuron record ({said(error)}); pass a file that lazyneuron wrote."
            ) from error


def write_text(path: Path, text: str) -> None:
    """Write a whole file or nothing: a crash, a power cut or Ctrl-C leaves what was there.

    Raises:
        DataError: the folder cannot be written.
    """
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Write a whole file or nothing: a crash, a power cut or Ctrl-C leaves what was there, and no new empty folder.

    Raises:
        DataError: the folder cannot be written.
    """
    # not mkstemp: the file shall have the permissions that the user's other files have
    temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex}.part")
    try:
        with made_folder(path.parent):
            try:
                with temporary.open("xb") as file:
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
                os.replace(temporary, path)
                to_disk(path.parent)
            finally:
                with contextlib.suppress(OSError):
                    temporary.unlink(missing_ok=True)
    except OSError as error:
        raise DataError(f"Cannot write {path} ({error.strerror}); choose a folder that you can write.") from error


@contextlib.contextmanager
def made_folder(folder: Path) -> Iterator[None]:
    """Make a folder with its parents; if the body fails, those that were made go again unless something is in them."""
    missing = [p for p in (folder, *folder.parents) if not p.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except BaseException:
        with contextlib.suppress(OSError):
            for made in missing:
                made.rmdir()
        raise


def to_disk(path: Path) -> None:
    """Let a file, or a folder's list of files, survive a power cut; where folders cannot be opened, only files do."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
