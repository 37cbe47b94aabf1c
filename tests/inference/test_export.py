"""What stands in the output folder after a case."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO

from srseg.images.write import stored_dtype
from srseg.inference.export import is_written, write_prediction
from srseg.inference.native_grid import to_native_grid
from tests.inference.exported import CROPPED, hr_properties, noise, plans_and_labels


@pytest.fixture
def written(tmp_path):
    plans_manager, _, label_manager = plans_and_labels()
    prediction = to_native_grid(
        noise(4, *CROPPED),
        noise(1, *CROPPED),
        hr_properties(),
        plans_manager,
        label_manager,
        with_probabilities=True,
    )
    write_prediction(
        prediction,
        "a",
        tmp_path / "out",
        hr_properties=hr_properties(),
        plans_manager=plans_manager,
        file_ending=".nii.gz",
    )
    return prediction, tmp_path / "out"


def test_files_hold_the_prediction_and_nothing_else_is_left(written):
    prediction, folder = written
    names = sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())
    assert names == ["a.nii.gz", "a.npz", "a.pkl", "sr/a_0000.nii.gz"]
    segmentation, properties = SimpleITKIO().read_seg(str(folder / "a.nii.gz"))
    np.testing.assert_array_equal(segmentation[0], prediction.segmentation)
    assert properties["sitk_stuff"]["origin"] == pytest.approx((10.0, -20.0, 30.5))
    with (folder / "a.pkl").open("rb") as stream:
        assert pickle.load(stream) == hr_properties()
    np.testing.assert_array_equal(
        np.load(folder / "a.npz")["probabilities"], prediction.probabilities
    )


def test_sr_file_has_the_input_s_dtype_rounded(written):
    prediction, folder = written
    assert stored_dtype(folder / "sr/a_0000.nii.gz") == np.int16
    image, _ = SimpleITKIO().read_images([str(folder / "sr/a_0000.nii.gz")])
    np.testing.assert_array_equal(image, np.rint(prediction.sr_image))


def test_complete_means_all_that_was_asked_for(written):
    _, folder = written

    def complete(**options):
        return is_written("a", folder, ".nii.gz", **options)

    assert complete(with_sr=True, with_probabilities=True)
    (folder / "a.npz").unlink()
    assert not complete(with_sr=True, with_probabilities=True)
    assert complete(with_sr=True, with_probabilities=False)
    (folder / "sr/a_0000.nii.gz").unlink()
    assert not complete(with_sr=True, with_probabilities=False)
    assert complete(with_sr=False, with_probabilities=False)
