import pytest

from lazyneuron.cli.output import check_writable
from lazyneuron.core.errors import DataError


def test_folders_are_made_and_nothing_is_left_in_them(tmp_path):
    path = tmp_path / "a" / "b.json"
    check_writable(None, path)
    assert path.parent.is_dir()
    assert list(path.parent.iterdir()) == []


def test_what_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("kept")
    with pytest.raises(DataError, match="Cannot write"):
        check_writable(tmp_path / "file" / "b.json")
    with pytest.raises(DataError, match="is a folder"):
        check_writable(tmp_path)
    assert (tmp_path / "file").read_text() == "kept"
