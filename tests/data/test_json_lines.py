"""C4's format, made small; and files that are not quite it."""

from __future__ import annotations

import gzip
import json

import pytest

from lazyneuron.core.errors import ConfigError, DataError
from lazyneuron.data import c4_documents, json_texts

ROWS = [{"text": f"Text {k}: ä\nsecond line", "timestamp": "2019-04-25T12:57:54Z", "url": f"u/{k}"} for k in range(5)]


def lines(rows):
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def write(path, text):
    data = text.encode() if isinstance(text, str) else text
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.jsonl.gz", "a.json.gz"])
def test_texts_come_back(tmp_path, name):
    path = write(tmp_path / name, "\ufeff" + lines(ROWS[:2]) + "\n  \n" + lines(ROWS[2:]).rstrip("\n"))
    assert list(json_texts(path)) == [row["text"] for row in ROWS]
    assert list(json_texts(path, column="url")) == [f"u/{k}" for k in range(5)]


def test_shards_of_a_split_in_order(tmp_path):
    write(tmp_path / "c4-train.00001-of-01024.json.gz", lines(ROWS[3:]))
    write(tmp_path / "c4-train.00000-of-01024.json", lines(ROWS[:3]))
    write(tmp_path / "c4-validation.00000-of-00008.json.gz", lines(ROWS[:1]))
    (tmp_path / "c4-train.00002-of-01024.json.gz.part").write_text("half")
    found = list(c4_documents(tmp_path))
    assert [text for _, text in found] == [row["text"] for row in ROWS]
    assert found[0][0] == "c4-train.00000-of-01024.json:1" and found[3][0] == "c4-train.00001-of-01024.json.gz:1"
    assert len(list(c4_documents(tmp_path, split="validation"))) == 1
    with pytest.raises(ConfigError, match="got 'test'"):
        next(c4_documents(tmp_path, split="test"))
    with pytest.raises(DataError, match=r"has no shard c4-train\.\*"):
        next(c4_documents(tmp_path / "none"))


def test_reading_is_lazy(tmp_path):
    path = write(tmp_path / "a.jsonl", lines(ROWS) + "broken\n")
    texts = json_texts(path)
    assert [next(texts) for _ in ROWS] == [row["text"] for row in ROWS]
    with pytest.raises(DataError, match=r"Line 6 of .*a.jsonl is not JSON"):
        next(texts)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lines([*ROWS[:1], {"body": "x", "url": "y"}]), r'Line 2 .* has no text.*string in "text", it has \'body\', '),
        ('{"text": 3}\n', "Line 1 .* has no text"),
        ("[1]\n", "Line 1 .* it is no object"),
        ("{}\n", "it has nothing"),
        ('{"text": "a"\n', "Line 1 of .* is not JSON"),
        (b'{"text": "\xff"}\n', "Line 1 of .* is not UTF-8"),
        ("\n \n", "is empty"),
        ("", "is empty"),
    ],
)
def test_broken_lines_are_named(tmp_path, content, message):
    for name in ("a.jsonl", "a.jsonl.gz"):
        with pytest.raises(DataError, match=message):
            list(json_texts(write(tmp_path / name, content)))


def test_damaged_files_are_named(tmp_path):
    whole = gzip.compress(lines(ROWS * 50).encode())
    for content in (whole[: len(whole) // 2], b"no gzip at all", whole[:40] + b"\0\0\0\0" + whole[44:]):
        (tmp_path / "a.json.gz").write_bytes(content)
        with pytest.raises(DataError, match=r"a.json.gz is no whole gzip file"):
            list(json_texts(tmp_path / "a.json.gz"))
    for path in (tmp_path / "missing.jsonl", tmp_path):
        with pytest.raises(DataError, match=r"There is no file|is a folder"):
            list(json_texts(path))
