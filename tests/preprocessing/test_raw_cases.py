"""Which files belong to a case, and what is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest

from srseg.preprocessing.raw_cases import (
    files_by_case,
    most_voxels,
    read_raw_case,
    training_files,
    unlabelled_files,
)
from tests.preprocessing.hand_plans import hand_plans, managers
from tests.tiny_dataset import SHAPES, SPACING, read_volume, save_volume, write_unlabelled


def description(folder):
    return json.loads((folder / "dataset.json").read_text())


def read(folder, case="tiny_0", scale=(1, 2, 2), reader="SimpleITKIO"):
    dataset_json = description(folder)
    files = training_files(folder, dataset_json)[case]
    return read_raw_case(files, *managers(hand_plans(SPACING, scale, reader=reader)), dataset_json)


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


def unlabelled(folder):
    dataset_json = description(folder)
    return unlabelled_files(folder, dataset_json, training_files(folder, dataset_json))


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


def test_a_case_without_labels_is_read_as_background(tiny_copy):
    write_unlabelled(tiny_copy, 0)
    arguments = (*managers(hand_plans(SPACING, (1, 2, 2))), description(tiny_copy))
    raw = read_raw_case(unlabelled(tiny_copy)["more_0"], *arguments)
    assert not raw.labelled
    assert read(tiny_copy).labelled
    assert raw.hr_seg.shape == (1, *raw.hr_image.shape[1:])
    assert not raw.hr_seg.any()
    np.testing.assert_array_equal(raw.hr_image, 1.5 * read(tiny_copy).hr_image)


def test_the_largest_image_counts(tiny_dataset, tmp_path):
    cases = training_files(tiny_dataset, description(tiny_dataset))
    assert most_voxels(cases.values()) == max(np.prod(shape) for shape in SHAPES[:5])
    damaged = tmp_path / "imagesTr" / "a_0000.nii.gz"
    damaged.parent.mkdir()
    damaged.write_bytes(b"12345")
    (tmp_path / "labelsTr").mkdir()
    (tmp_path / "labelsTr" / "a.nii.gz").touch()
    assert most_voxels(training_files(tmp_path, {"file_ending": ".nii.gz"}).values()) == 20


def test_a_case_is_read_with_its_stored_dtype(tiny_copy):
    raw = read(tiny_copy)
    image, _ = read_volume(tiny_copy / "imagesTr" / "tiny_0_0000.nii.gz")
    labels, _ = read_volume(tiny_copy / "labelsTr" / "tiny_0.nii.gz")
    np.testing.assert_array_equal(raw.hr_image[0], image)
    np.testing.assert_array_equal(raw.hr_seg[0], labels)
    assert (raw.dtypes, raw.lr_image, raw.valid) == (["float32"], None, None)
    file = tiny_copy / "imagesTr" / "tiny_0_0000.nii.gz"
    save_volume(image.astype(np.int16), file)
    assert read(tiny_copy).dtypes == ["int16"]


def test_every_channel_has_its_own_dtype(tiny_copy):
    add_channel(tiny_copy, np.int16)
    assert read(tiny_copy).dtypes == ["float32", "int16"]


def add_channel(folder, dtype):
    """Give the first case a second channel, the first one in another dtype."""
    image, affine = read_volume(folder / "imagesTr" / "tiny_0_0000.nii.gz")
    save_volume(image.astype(dtype), folder / "imagesTr" / "tiny_0_0001.nii.gz", affine)
    two = description(folder) | {"channel_names": {"0": "T1", "1": "T2"}}
    (folder / "dataset.json").write_text(json.dumps(two))


def spoil_image(folder, change):
    file = folder / "imagesTr" / "tiny_0_0000.nii.gz"
    image, affine = read_volume(file)
    save_volume(change(image.copy()), file, affine)


def with_nan(image):
    image[2, 3, 4] = np.nan
    return image


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (with_nan, "case tiny_0: .* holds 1 NaN"),
        (lambda image: image[:, :-1], "case tiny_0: image and label lie on different grids"),
    ],
)
def test_bad_images_are_refused(tiny_copy, change, message):
    spoil_image(tiny_copy, change)
    with pytest.raises(ValueError, match=message):
        read(tiny_copy, reader="NibabelIO")  # ITK reads a NaN of a NIfTI file as 0


def test_undeclared_labels_are_refused(tiny_copy):
    file = tiny_copy / "labelsTr" / "tiny_0.nii.gz"
    labels, affine = read_volume(file)
    save_volume(np.where(labels == 2, 7, labels).astype(np.uint8), file, affine)
    with pytest.raises(ValueError, match=r"case tiny_0: .* 7, which dataset.json does not"):
        read(tiny_copy)


def test_an_image_smaller_than_the_scale_is_refused(tiny_copy):
    with pytest.raises(ValueError, match="case tiny_0: the image .* smaller than the scale 8x1x1"):
        read(tiny_copy, scale=(8, 1, 1))


def test_a_pair_is_read_onto_the_refined_grid(tiny_copy):
    image, affine = read_volume(tiny_copy / "imagesTr" / "tiny_0_0000.nii.gz")
    (tiny_copy / "imagesLrTr").mkdir()
    for number in range(5):  # LR: every second voxel of the first case's even part, faces matching
        lr_image = image[:, :32, :].reshape(7, 16, 2, 15, 2).mean((2, 4))
        matrix = affine @ np.array(  # x and y voxels twice as large
            [[2, 0, 0, 0.5], [0, 2, 0, 0.5], [0, 0, 1, 0], [0, 0, 0, 1]]
        )
        file = tiny_copy / "imagesLrTr" / f"tiny_{number}_0000.nii.gz"
        save_volume(lr_image.astype(np.float32), file, matrix)
    raw = read(tiny_copy)
    assert raw.lr_image.shape == (1, 7, 16, 15)
    assert raw.hr_image.shape == (1, 7, 32, 30)
    np.testing.assert_allclose(raw.hr_image[0, 1:-1, 2:-2, 2:-2], image[1:-1, 2:30, 2:-2], atol=1)
    np.testing.assert_allclose(raw.properties["spacing"], SPACING, rtol=1e-5)
    assert raw.valid is None
    assert raw.labelled
