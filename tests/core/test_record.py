"""Records survive JSON with their provenance, and a file is written whole or not at all."""

import json
import os
import platform

import pytest
import torch

from lazyneuron.core import record as record_module
from lazyneuron.core.environment import environment
from lazyneuron.core.errors import CheckpointError, DataError
from lazyneuron.core.record import Record, write_text


def small():
    return Record(kind="benchmark/accelerate", data={"dense_us": 415.0, "rows": [1, 2]}, seed=0)


def test_a_record_comes_back_from_json_equal():
    record = small()
    assert Record.from_json(record.to_json()) == record


def test_a_record_says_where_it_was_measured():
    facts = json.loads(small().to_json())["environment"]
    assert facts["torch"] == torch.__version__
    assert facts["python"] == platform.python_version()
    assert facts["threads"] == torch.get_num_threads()
    assert 1 <= facts["cores"] <= (os.cpu_count() or 1)


def test_the_facts_are_read_anew_each_time():
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(before + 1)
        assert environment().threads == before + 1
    finally:
        torch.set_num_threads(before)


def test_every_truncation_is_refused():
    text = small().to_json()
    for end in range(len(text)):
        with pytest.raises(CheckpointError, match="not a lazyneuron record"):
            Record.from_json(text[:end])


@pytest.mark.parametrize("text", ["", "null", "[]", "{}", "[" * 100_000])
def test_other_text_is_refused(text):
    with pytest.raises(CheckpointError, match="not a lazyneuron record"):
        Record.from_json(text)


@pytest.mark.parametrize(
    ("key", "value"), [("format", 0), ("environment", None), ("environment", {"isa": []}), ("unknown", 1)]
)
def test_a_wrong_part_is_refused(key, value):
    raw = {**json.loads(small().to_json()), key: value}
    with pytest.raises(CheckpointError):
        Record.from_json(json.dumps(raw))


def test_write_text_makes_folders_and_replaces(tmp_path):
    path = tmp_path / "a" / "b.json"
    write_text(path, "first")
    write_text(path, "zweiter Text: ä")
    assert path.read_text(encoding="utf-8") == "zweiter Text: ä"
    assert [p.name for p in path.parent.iterdir()] == ["b.json"]


@pytest.mark.parametrize("fault", [KeyboardInterrupt, MemoryError])
def test_an_interrupted_write_leaves_what_was_there(tmp_path, monkeypatch, fault):
    path = tmp_path / "record.json"
    write_text(path, "old")

    def interrupted(*_):
        raise fault

    monkeypatch.setattr(record_module.os, "replace", interrupted)
    with pytest.raises(fault):
        write_text(path, "new")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["record.json"]


def test_text_that_cannot_be_encoded_leaves_what_was_there(tmp_path):
    path = tmp_path / "record.json"
    write_text(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write_text(path, "\ud800")
    assert path.read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"Cannot write .*file"):
        write_text(tmp_path / "file" / "record.json", "text")


def test_a_target_that_is_a_folder_is_named(tmp_path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(DataError, match=r"Cannot write .*folder"):
        write_text(tmp_path / "folder", "text")
    assert [p.name for p in tmp_path.iterdir()] == ["folder"]
