"""Which files make which case, and which of the cases are left."""

from __future__ import annotations

import pytest

from srseg.inference.cases import (
    cases_of_files,
    check_num_files,
    list_cases,
    select_part,
)


def touch(folder, *names):
    for name in names:
        (folder / name).touch()


def test_channels_are_gathered_in_order(tmp_path):
    touch(tmp_path, "b_0001.nii.gz", "b_0000.nii.gz", "a_x_0000.nii.gz", "a_x_0001.nii.gz")
    touch(tmp_path, "dataset.json", ".hidden_0000.nii.gz")
    cases = list_cases(tmp_path, ".nii.gz")
    assert [case.name for case in cases] == ["a_x", "b"]
    assert [file.name for file in cases[1].files] == ["b_0000.nii.gz", "b_0001.nii.gz"]


def test_explicit_lists_keep_their_order(tmp_path):
    cases = cases_of_files([["x/b_0000.png", "y/b_0001.png"], ["a_0000.png"]], ".png")
    assert [case.name for case in cases] == ["b", "a"]
    with pytest.raises(ValueError, match="more than once: a"):
        cases_of_files([["a_0000.png"], ["z/a_0000.png"]], ".png")
    with pytest.raises(ValueError, match="empty list"):
        cases_of_files([[]], ".png")


def test_unusable_folders_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="does not exist"):
        list_cases(tmp_path / "absent", ".nii.gz")
    with pytest.raises(FileNotFoundError, match=r"end in \.nii\.gz.*no files"):
        list_cases(tmp_path, ".nii.gz")
    touch(tmp_path, "a_0000.nrrd")
    with pytest.raises(FileNotFoundError, match=r"it has: \.nrrd"):
        list_cases(tmp_path, ".nii.gz")


@pytest.mark.parametrize("name", ["scan.nii.gz", "scan_000.nii.gz", "_0000.nii.gz"])
def test_a_name_without_channel_is_refused(tmp_path, name):
    touch(tmp_path, "a_0000.nii.gz", name)
    with pytest.raises(ValueError, match=f"'{name}' is not named"):
        list_cases(tmp_path, ".nii.gz")


def test_a_missing_channel_is_named(tmp_path):
    touch(tmp_path, "a_0000.nii.gz", "a_0002.nii.gz")
    with pytest.raises(ValueError, match="case a lacks channel.*_0001"):
        list_cases(tmp_path, ".nii.gz")


def test_the_number_of_files_must_be_the_model_s():
    cases = cases_of_files([["a_0000.png"], ["b_0000.png", "b_0001.png"]], ".png")
    check_num_files(cases[:1], 1)
    with pytest.raises(ValueError, match=r"case b has 2 .*b_0000.png, b_0001.png.* takes 1"):
        check_num_files(cases, 1)


def test_parts_are_disjoint_and_complete():
    cases = cases_of_files([[f"{i}_0000.png"] for i in range(7)], ".png")
    parts = [select_part(cases, i, 3) for i in range(3)]
    assert parts == [cases[0::3], cases[1::3], cases[2::3]]
    for part_id, num_parts in ((3, 3), (-1, 3), (0, 0)):
        with pytest.raises(ValueError, match="part_id must be from 0"):
            select_part(cases, part_id, num_parts)
