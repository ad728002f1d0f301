"""Texts from JSON lines, plain or gzipped, one line at a time."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from lazyneuron.core.errors import ConfigError, DataError
from lazyneuron.data.lines import numbered_lines

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
        yield _json_text(line, Path(path), number, column=column)


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
            yield f"{shard.name}:{number}", _json_text(line, shard, number, column=column)


def _json_text(line: str, path: Path, number: int, *, column: str = "text") -> str:
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
