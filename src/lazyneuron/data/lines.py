"""Lines of text files, plain or gzipped, one at a time."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from lazyneuron.core.errors import DataError


def numbered_lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines that are not blank, without the space around them, with their numbers from 1.

    Raises:
        DataError: the file is missing, empty, binary, damaged or not UTF-8.
    """
    empty, number, offset = True, 0, 0
    try:
        with _opened(path) as file:
            for number, raw in enumerate(file, start=1):
                if b"\0" in raw:
                    raise DataError(f"{path} is a binary file, but UTF-8 text is needed.")
                line = raw.decode("utf-8-sig" if number == 1 else "utf-8").strip()
                offset += len(raw)
                if line:
                    empty = False
                    yield number, line
    except UnicodeDecodeError as error:
        where = f"byte 0x{error.object[error.start]:02x} at offset {offset + error.start}"
        raise DataError(f"Line {number} of {path} is not UTF-8: {where}; convert the file to UTF-8.") from error
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{path} is no whole gzip file after line {number} ({error}); fetch it again.") from error
    except OSError as error:
        raise unreadable(path, error) from error
    if empty:
        raise DataError(f"{path} is empty; at least one line of text is needed.")


def unreadable(path: Path, error: OSError) -> DataError:
    """What is to be said of a file that cannot be opened."""
    if isinstance(error, FileNotFoundError):
        return DataError(f"There is no file {path}; name one of text, .jsonl, or tensors.")
    if isinstance(error, IsADirectoryError):
        return DataError(f"{path} is a folder; name a file, or for a vision model a folder of images.")
    return DataError(f"Cannot read {path} ({error.strerror}); choose a file that you may read.")


def _opened(path: Path) -> IO[bytes] | Any:
    return gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb")
