"""Files that a command is asked to write."""

from __future__ import annotations

import tempfile
from pathlib import Path

from lazyneuron.core.errors import DataError


def check_writable(*paths: Path | None) -> None:
    """Make sure, before any work is done, that these files can be written; nothing is made or left.

    Args:
        paths: the files; None stands for one that was not asked for.

    Raises:
        DataError: a file's folder cannot be created or written, or the file is a folder.
    """
    for path in paths:
        if path is None:
            continue
        if path.is_dir():
            raise DataError(f"{path} is a folder; name a file in it.")
        try:
            with tempfile.TemporaryFile(dir=next(p for p in path.parents if p.exists())):
                pass
        except OSError as error:
            raise DataError(f"Cannot write {path} ({error.strerror}); choose a folder that you can write.") from error
