"""The demo's files: all of them whole, or none."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

from lazyneuron.core.errors import DataError
from lazyneuron.experiments.demo.pipeline import Result
from lazyneuron.report import demo_page
from lazyneuron.save import save

RECORD, PAGE = "record.json", "page.html"


def check_folder(folder: Path) -> None:
    """Make sure, before any work is done, that files can be put into a folder; it is created if need be.

    Raises:
        DataError: it cannot be created or written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise DataError(f"Cannot write into {folder} ({error.strerror}); choose another folder with --out.") from error


@contextlib.contextmanager
def removed_if_empty(folder: Path) -> Iterator[None]:
    """Remove a folder, and those around it, that did not exist before if the body fails and leaves nothing in it."""
    new = [place for place in (folder, *folder.parents) if not place.exists()]
    try:
        yield
    except BaseException:
        with contextlib.suppress(OSError):  # one that is not empty stays, and so do those around it
            for place in new:
                place.rmdir()
        raise


def write(result: Result, folder: Path) -> None:
    """Put the record, the page and the sparse model with its receipt into a folder; all of them or none.

    Args:
        result: what :func:`lazyneuron.experiments.demo.pipeline.run_demo` returned.
        folder: an existing folder.

    Raises:
        DataError: the folder cannot be written.
    """
    beside = {RECORD: result.record.to_json().encode(), PAGE: demo_page(result.record).encode()}
    save(result.model, folder, result.receipt, beside=beside)
