"""Files that a command is asked to write: checked before any work is done, written at its end."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from lazyneuron.core.errors import DataError

if TYPE_CHECKING:
    from lazyneuron.core.receipt import Receipt
    from lazyneuron.core.record import Record


def check_writable(*paths: Path | None, folder: Path | None = None) -> None:
    """Make sure, before any work is done, that these files can be written; nothing is created, so that none is left.

    Args:
        paths: the files; None stands for one that was not asked for.
        folder: a folder that files will be put into, or None.

    Raises:
        DataError: a file's folder cannot be created or written, or the file is a folder.
    """
    for path in (*paths, None if folder is None else folder / "receipts.json"):
        if path is None:
            continue
        try:
            if path.is_dir():
                raise DataError(f"{path} is a folder; name a file in it.")
            nearest = next(folder for folder in path.absolute().parents if folder.exists())
            with tempfile.TemporaryFile(dir=nearest):
                pass
        except ValueError as error:
            if isinstance(error, DataError):
                raise
            raise DataError(f"{str(path)!r} names no file ({error}); choose another name.") from error
        except OSError as error:
            raise DataError(f"Cannot write {path} ({error.strerror}); choose a folder that you can write.") from error


def write_record(path: Path | None, record: Record | Receipt) -> None:
    """Write a record or a receipt as JSON, if that was asked for.

    Raises:
        DataError: the file cannot be written.
    """
    from lazyneuron.core.record import write_text

    if path is not None:
        write_text(path, record.to_json())
