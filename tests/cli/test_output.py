import pytest

from lazyneuron.cli.output import check_writable
from lazyneuron.core.errors import DataError


def test_nothing_is_made_before_there_is_something_to_write(tmp_path):
    check_writable(None, tmp_path / "a" / "b" / "c.json", tmp_path / "d.json")
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("kept")
    with pytest.raises(DataError, match="Cannot write"):
        check_writable(tmp_path / "file" / "b.json")
    with pytest.raises(DataError, match="is a folder"):
        check_writable(tmp_path)
    assert (tmp_path / "file").read_text() == "kept"
