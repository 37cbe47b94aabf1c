"""What is read of a case, and what is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest

from srseg.preprocessing.case_files import (
    training_files,
    unlabelled_files,
)
from srseg.preprocessing.raw_cases import read_raw_case
from tests.preprocessing.hand_plans import hand_plans, managers
from tests.tiny_dataset import SPACING, read_volume, save_volume, write_unlabelled


def description(folder):
    return json.loads((folder / "dataset.json").read_text())


def read(folder, case="tiny_0", scale=(1, 2, 2), reader="SimpleITKIO"):
    dataset_json = description(folder)
    files = training_files(folder, dataset_json)[case]
    return read_raw_case(files, *managers(hand_plans(SPACING, scale, reader=reader)), dataset_json)


def test_a_case_without_labels_is_read_as_background(tiny_copy):
    write_unlabelled(tiny_copy, 0)
    arguments = (*managers(hand_plans(SPACING, (1, 2, 2))), description(tiny_copy))
    dataset_json = description(tiny_copy)
    files = unlabelled_files(tiny_copy, dataset_json, training_files(tiny_copy, dataset_json))
    raw = read_raw_case(files["more_0"], *arguments)
    assert not raw.labelled
    assert read(tiny_copy).labelled
    assert raw.hr_seg.shape == (1, *raw.hr_image.shape[1:])
    assert not raw.hr_seg.any()
    np.testing.assert_array_equal(raw.hr_image, 1.5 * read(tiny_copy).hr_image)


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
