"""Which files belong to a case, and what is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest

from srseg.preprocessing.case_files import (
    files_by_case,
    most_voxels,
    training_files,
    unlabelled_files,
)
from tests.tiny_dataset import SHAPES, write_unlabelled


def description(folder):
    return json.loads((folder / "dataset.json").read_text())


def unlabelled(folder):
    dataset_json = description(folder)
    return unlabelled_files(folder, dataset_json, training_files(folder, dataset_json))


def test_all_cases_with_their_files(tiny_dataset):
    cases = training_files(tiny_dataset, description(tiny_dataset))
    assert list(cases) == [f"tiny_{i}" for i in range(5)]
    assert cases["tiny_3"].images == (tiny_dataset / "imagesTr" / "tiny_3_0000.nii.gz",)
    assert cases["tiny_3"].label == tiny_dataset / "labelsTr" / "tiny_3.nii.gz"
    assert cases["tiny_3"].lr_images is None
    assert cases["tiny_3"].all_files == (*cases["tiny_3"].images, cases["tiny_3"].label)


def test_channels_are_in_order_and_other_files_left_out(tmp_path):
    for name in ("b_0001.nii.gz", "b_0000.nii.gz", "a_1_0000.nii.gz", "notes.txt", "c.nii.gz"):
        (tmp_path / name).touch()
    found = files_by_case(tmp_path, ".nii.gz")
    assert {case: [file.name for file in files] for case, files in found.items()} == {
        "a_1": ["a_1_0000.nii.gz"],
        "b": ["b_0000.nii.gz", "b_0001.nii.gz"],
    }


def test_the_json_beside_a_tiff_belongs_to_the_case(tmp_path):
    for name in ("imagesTr/a_0000.tif", "imagesTr/a.json", "labelsTr/a.tif"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    files = training_files(tmp_path, {"file_ending": ".tif"})["a"]
    assert tmp_path / "imagesTr" / "a.json" in files.all_files


def test_files_listed_in_dataset_json(tiny_dataset, tmp_path):
    listed = {
        "first": {
            "images": [str(tiny_dataset / "imagesTr" / "tiny_2_0000.nii.gz")],
            "label": str(tiny_dataset / "labelsTr" / "tiny_2.nii.gz"),
        }
    }
    cases = training_files(tmp_path, {"file_ending": ".nii.gz", "dataset": listed})
    assert list(cases) == ["first"]
    assert cases["first"].label == tiny_dataset / "labelsTr" / "tiny_2.nii.gz"


def test_pairs_are_found(tiny_copy):
    (tiny_copy / "imagesLrTr").mkdir()
    with pytest.raises(FileNotFoundError, match=r"case tiny_0 has no LR image .*imagesLrTr"):
        training_files(tiny_copy, description(tiny_copy))
    for number in range(5):
        (tiny_copy / "imagesLrTr" / f"tiny_{number}_0000.nii.gz").touch()
    cases = training_files(tiny_copy, description(tiny_copy))
    assert cases["tiny_4"].lr_images == (tiny_copy / "imagesLrTr" / "tiny_4_0000.nii.gz",)


def test_a_missing_label_is_named(tiny_copy):
    (tiny_copy / "labelsTr" / "tiny_3.nii.gz").unlink()
    with pytest.raises(FileNotFoundError, match=r"case tiny_3 has no file .*tiny_3.nii.gz"):
        training_files(tiny_copy, description(tiny_copy))


def test_no_cases(tmp_path):
    (tmp_path / "imagesTr").mkdir()
    with pytest.raises(FileNotFoundError, match="no training cases"):
        training_files(tmp_path, {"file_ending": ".nii.gz"})
    with pytest.raises(FileNotFoundError, match="imagesNo does not exist"):
        files_by_case(tmp_path / "imagesNo", ".nii.gz")


def test_images_without_labels_are_cases_of_their_own(tiny_copy):
    assert unlabelled(tiny_copy) == {}
    assert write_unlabelled(tiny_copy, 3, 1) == list(unlabelled(tiny_copy)) == ["more_1", "more_3"]
    files = unlabelled(tiny_copy)["more_3"]
    assert files.images == (tiny_copy / "imagesUnTr" / "more_3_0000.nii.gz",)
    assert (files.label, files.all_files) == (None, files.images)
    assert not any("more" in case for case in training_files(tiny_copy, description(tiny_copy)))


def test_images_without_labels_are_checked(tiny_copy):
    folder = tiny_copy / "imagesUnTr"
    folder.mkdir()
    (folder / "notes.txt").touch()
    with pytest.raises(FileNotFoundError, match="imagesUnTr has no files named <case>_0000"):
        unlabelled(tiny_copy)
    write_unlabelled(tiny_copy, 0)
    stray = folder / "more_1.nii.gz"
    stray.touch()
    with pytest.raises(ValueError, match=r"more_1.nii.gz must be named <case>_0000.nii.gz"):
        unlabelled(tiny_copy)
    stray.rename(folder / "tiny_3_0000.nii.gz")
    with pytest.raises(ValueError, match="case tiny_3 has labels and lies in imagesUnTr as well"):
        unlabelled(tiny_copy)


def test_with_real_pairs_images_without_labels_need_their_lr_image(tiny_copy):
    write_unlabelled(tiny_copy, 0)
    (tiny_copy / "imagesLrTr").mkdir()
    for number in range(5):
        (tiny_copy / "imagesLrTr" / f"tiny_{number}_0000.nii.gz").touch()
    with pytest.raises(FileNotFoundError, match="case more_0 has no LR image .*imagesLrTr"):
        unlabelled(tiny_copy)
    lr_image = tiny_copy / "imagesLrTr" / "more_0_0000.nii.gz"
    lr_image.touch()
    assert unlabelled(tiny_copy)["more_0"].lr_images == (lr_image,)


def test_the_largest_image_counts(tiny_dataset, tmp_path):
    cases = training_files(tiny_dataset, description(tiny_dataset))
    assert most_voxels(cases.values()) == max(np.prod(shape) for shape in SHAPES[:5])
    damaged = tmp_path / "imagesTr" / "a_0000.nii.gz"
    damaged.parent.mkdir()
    damaged.write_bytes(b"12345")
    (tmp_path / "labelsTr").mkdir()
    (tmp_path / "labelsTr" / "a.nii.gz").touch()
    assert most_voxels(training_files(tmp_path, {"file_ending": ".nii.gz"}).values()) == 20
