import pytest

from lazyneuron.cli.output import check_writable, write_record
from lazyneuron.core.errors import DataError
from lazyneuron.core.record import Record


def test_nothing_is_left_behind(tmp_path):
    check_writable(None, tmp_path / "a" / "b" / "c.json", tmp_path / "d.json")
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("kept")
    with pytest.raises(DataError, match="Cannot write"):
        check_writable(tmp_path / "file" / "b.json")
    with pytest.raises(DataError, match="Cannot write"):
        check_writable(folder=tmp_path / "file")
    with pytest.raises(DataError, match="is a folder"):
        check_writable(tmp_path)
    check_writable(folder=tmp_path)
    assert (tmp_path / "file").read_text() == "kept"


def test_a_record_is_written_if_it_was_asked_for(tmp_path):
    record = Record(kind="a", data={"b": 1}, seed=None)
    write_record(None, record)
    write_record(tmp_path / "new" / "r.json", record)
    assert Record.from_json((tmp_path / "new" / "r.json").read_text()) == record
