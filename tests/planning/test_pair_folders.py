"""Files are paired by their names, whatever the naming and the order."""

from __future__ import annotations

import pytest

from srseg.planning.pair_folders import PairFolders, match_pairs


@pytest.fixture
def sides(tmp_path):
    """Return a function that makes empty files and returns the folders."""

    def make(lr, hr, labels):
        folders = PairFolders(*(tmp_path / name for name in ("lr", "hr", "labels")))
        for folder, names in zip(
            (folders.lr, folders.hr, folders.labels), (lr, hr, labels), strict=True
        ):
            folder.mkdir()
            for name in names.split():
                (folder / name).touch()
        return folders

    return make


def names_of(cases):
    return {
        case: (
            [file.name for file in files.lr_images],
            [file.name for file in files.images],
            files.label.name,
        )
        for case, files in cases.items()
    }


def test_channel_numbers_on_one_side_only(sides):
    folders = sides("b.nii.gz a.nii.gz", "a_0000.nii.gz b_0000.nii.gz", "b.nii.gz a.nii.gz")
    ending, cases = match_pairs(folders)
    assert ending == ".nii.gz"
    assert names_of(cases) == {
        "a": (["a.nii.gz"], ["a_0000.nii.gz"], "a.nii.gz"),
        "b": (["b.nii.gz"], ["b_0000.nii.gz"], "b.nii.gz"),
    }


def test_several_channels_and_labels_with_a_number(sides):
    images = "a_0000.nrrd a_0001.nrrd b_0000.nrrd b_0001.nrrd"
    _, cases = match_pairs(sides(images, images, "a_0000.nrrd b_0000.nrrd"))
    assert names_of(cases)["b"] == (
        ["b_0000.nrrd", "b_0001.nrrd"],
        ["b_0000.nrrd", "b_0001.nrrd"],
        "b_0000.nrrd",
    )


@pytest.mark.parametrize("cases", ["p_0001", "p_0000 p_0001", "p_0001 p_0002 p_0107"])
@pytest.mark.parametrize("suffix", ["", "_0000"])
def test_case_names_that_look_like_channels(sides, cases, suffix):
    images = " ".join(f"{case}{suffix}.nii" for case in cases.split())
    folders = sides(images, images, " ".join(f"{case}.nii" for case in cases.split()))
    assert list(match_pairs(folders)[1]) == cases.split()


def test_other_files_are_left_alone(sides):
    folders = sides("a.tif a.json notes.txt .hidden.tif", "a.tif a.json", "a.tif")
    assert list(match_pairs(folders)[1]) == ["a"]


@pytest.mark.parametrize(
    ("lr", "hr", "labels", "message"),
    [
        (
            "a_0000.nii b_0000.nii",
            "b_0000.nii c_0000.nii",
            "a.nii b.nii c.nii",
            r"no LR file for 1 of 3 \(c\); no HR file for 1 of 3 \(a\)",
        ),
        ("a_0000.nii", "b_0000.nii", "a.nii", "share no case name; .* a .LR., b .HR., a .label."),
        ("a_0000.nii", "a_0000.nii.gz", "a.nii", r"one ending, got .nii, .nii.gz .*a_0000.nii.gz"),
        (
            "a_0000.nii a_0001.nii b_0000.nii",
            "a_0000.nii b_0000.nii",
            "a.nii b.nii",
            "case b has 1 channel files in .*lr, but case a has 2",
        ),
        (
            "a_0000.nii a_0002.nii",
            "a_0000.nii a_0001.nii",
            "a.nii",
            "case a must have the channels a_0000.nii, a_0001.nii, got a_0000.nii, a_0002.nii",
        ),
        (
            "a_0000.nii",
            "a_0000.nii a_0001.nii",
            "a.nii",
            "equally many channel files a case, got 1 in .*lr and 2 in .*hr",
        ),
        ("a_0000.nii", "a_0000.nii", "a_0000.nii a_0001.nii", "case a needs one label map"),
        ("a_0000.nii", "a_0000.txt", "a.nii", "hr holds no image file; known endings: .*.nii.gz"),
    ],
)
def test_what_does_not_match_is_said(sides, lr, hr, labels, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        match_pairs(sides(lr, hr, labels))


def test_incomplete_cases_can_be_left_out(sides, caplog):
    folders = sides("a.nii b.nii", "b.nii c.nii", "a.nii b.nii c.nii")
    assert list(match_pairs(folders, skip_incomplete=True)[1]) == ["b"]
    assert "left out: no LR file for 1 of 3 (c)" in caplog.text


def test_a_folder_that_is_not_there(sides, tmp_path):
    folders = sides("a.nii", "a.nii", "a.nii")
    with pytest.raises(FileNotFoundError, match="nowhere does not exist"):
        match_pairs(PairFolders(tmp_path / "nowhere", folders.hr, folders.labels))
