"""Texts from JSON lines, plain or gzipped, one line at a time."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from lazyneuron.core.errors import ConfigError, DataError

SUFFIXES = (".jsonl", ".json", ".jsonl.gz", ".json.gz")


def json_texts(path: str | Path, *, column: str = "text") -> Iterator[str]:
    """The texts in a file of JSON lines, read as they are asked for; blank lines are passed over.

    Args:
        path: ``.jsonl`` or ``.json``, or either with ``.gz``.
        column: which string of each line's object.

    Raises:
        DataError: the file is missing, empty, damaged or not UTF-8, or a line is broken or lacks the column.

    Source: the format of C4 as it is published.
    """
    for number, line in numbered_lines(Path(path)):
        yield json_text(line, Path(path), number, column=column)


def c4_documents(folder: str | Path, *, split: str = "train", column: str = "text") -> Iterator[tuple[str, str]]:
    """The documents of C4's shards, such as ``c4-train.00000-of-01024.json.gz``, shard after shard.

    Args:
        folder: with some of the shards, gzipped or not.
        split: ``"train"`` or ``"validation"``.
        column: which string of each line's object is the text.

    Yields:
        A name (shard and line) and the text.

    Raises:
        ConfigError: there is no such split.
        DataError: the folder has no shard of the split, or a shard is damaged.
    """
    if split not in ("train", "validation"):
        raise ConfigError(f"C4 has the splits 'train' and 'validation', got {split!r}.")
    folder = Path(folder)
    shards = sorted(p for p in folder.glob(f"c4-{split}.*") if p.name.endswith(SUFFIXES))
    if not shards:
        raise DataError(f"{folder} has no shard c4-{split}.*.json.gz; pass the folder of C4's files.")
    for shard in shards:
        for number, line in numbered_lines(shard):
            yield f"{shard.name}:{number}", json_text(line, shard, number, column=column)


def numbered_lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines that are not blank, with their numbers from 1.

    Raises:
        DataError: the file is missing, empty, damaged or not UTF-8.
    """
    empty, number = True, 0
    try:
        with _opened(path) as file:
            for number, raw in enumerate(file, start=1):
                line = raw.decode("utf-8-sig" if number == 1 else "utf-8").strip()
                if line:
                    empty = False
                    yield number, line
    except UnicodeDecodeError as error:
        raise DataError(f"Line {number} of {path} is not UTF-8 ({error.reason}); convert the file to UTF-8.") from error
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{path} is no whole gzip file after line {number} ({error}); fetch it again.") from error
    except OSError as error:
        raise DataError(f"Cannot read {path} ({error.strerror}); name a file that you may read.") from error
    if empty:
        raise DataError(f"{path} is empty; at least one line of text is needed.")


def json_text(line: str, path: Path, number: int, *, column: str = "text") -> str:
    """The text in one line.

    Raises:
        DataError: the line is no JSON object, or its column is missing or no string.
    """
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataError(f"Line {number} of {path} is not JSON ({error}).") from error
    if not isinstance(value, dict) or not isinstance(value.get(column), str):
        has = f"it has {', '.join(map(repr, value)) or 'nothing'}" if isinstance(value, dict) else "it is no object"
        raise DataError(
            f'Line {number} of {path} has no {column}; each line is an object with a string in "{column}", {has}.'
        )
    return str(value[column])


def _opened(path: Path) -> IO[bytes] | Any:
    return gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb")
