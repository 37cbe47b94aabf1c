"""A folder is kept while what it was made from is the same, and never emptied without a stamp."""

from __future__ import annotations

import os

import pytest

from srseg.evaluation.compare.stamp import (
    complete,
    content_of,
    files_identity,
    read_stamp,
    stamped_folder,
)


def test_a_folder_lives_as_long_as_its_identity(tmp_path):
    folder = tmp_path / "some" / "folder"
    assert stamped_folder(folder, {"a": 1}) == folder
    (folder / "file").touch()
    assert stamped_folder(folder, {"a": 1}).joinpath("file").is_file()  # begun, not complete
    assert content_of(folder, {"a": 1}) is None
    complete(folder, {"a": 1}, {"seconds": 2.5})
    assert content_of(folder, {"a": 1}) == {"seconds": 2.5}
    assert content_of(folder, {"a": 2}) is None
    stamped_folder(folder, {"a": 2})
    assert not (folder / "file").exists()
    assert content_of(folder, {"a": 2}) is None


def test_other_peoples_folders_are_left_alone(tmp_path):
    (tmp_path / "thesis.txt").touch()
    with pytest.raises(ValueError, match="holds files that srseg_compare did not write"):
        stamped_folder(tmp_path, {})
    assert (tmp_path / "thesis.txt").is_file()


def test_a_damaged_stamp_is_none(tmp_path):
    stamped_folder(tmp_path / "x", {})
    (tmp_path / "x" / "srseg_compare.json").write_text("{", encoding="utf-8")
    assert read_stamp(tmp_path / "x") is None
    assert read_stamp(tmp_path / "nowhere") is None


def test_files_are_known_by_name_size_and_time(tmp_path):
    file = tmp_path / "a"
    file.write_text("1", encoding="utf-8")
    os.utime(file, ns=(0, 10))
    assert files_identity([file]) == [["a", 1, 10]]
