"""The demo's files: all or none."""

import os

import pytest

from lazyneuron.core.errors import DataError
from lazyneuron.experiments.demo.output import check_folder, removed_if_empty


def test_folders_that_cannot_be_written_are_found_out(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"Cannot write into .*choose another folder with --out"):
        check_folder(tmp_path / "file" / "below")
    check_folder(tmp_path / "new" / "below")
    assert os.listdir(tmp_path / "new" / "below") == []


def test_an_empty_new_folder_goes_when_the_work_fails(tmp_path):
    for folder, stays in ((tmp_path / "new", False), (tmp_path, True)):
        with pytest.raises(KeyboardInterrupt), removed_if_empty(folder):
            check_folder(folder)
            raise KeyboardInterrupt
        assert folder.exists() is stays
    with pytest.raises(KeyboardInterrupt), removed_if_empty(tmp_path / "full"):
        check_folder(tmp_path / "full")
        (tmp_path / "full" / "a").write_text("kept")
        raise KeyboardInterrupt
    assert (tmp_path / "full" / "a").exists()
