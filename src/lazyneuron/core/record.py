"""A measured result with its provenance, written as JSON; everything that the report room reads."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lazyneuron.core.environment import Environment, environment
from lazyneuron.core.errors import CheckpointError, DataError

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
            return Record(environment=Environment(**{**facts, "isa": tuple(facts["isa"])}), **raw)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise CheckpointError(
                f"This is not a lazyneuron record ({error}); pass a file that lazyneuron wrote."
            ) from error


def write_text(path: Path, text: str) -> None:
    """Write a whole file or nothing: a crash or Ctrl-C leaves what was there.

    Raises:
        DataError: the folder cannot be written.
    """
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Write a whole file or nothing: a crash or Ctrl-C leaves what was there.

    Raises:
        DataError: the folder cannot be written.
    """
    # not mkstemp: the file shall have the permissions that the user's other files have
    temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("xb") as file:
            file.write(content)
        os.replace(temporary, path)
    except OSError as error:
        raise DataError(f"Cannot write {path} ({error.strerror}); choose a folder that you can write.") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
