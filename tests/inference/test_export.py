"""From the network's grid to the input's, scale times finer: labels, images, probabilities."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO
from nnunetv2.inference.export_prediction import (
    convert_predicted_logits_to_segmentation_with_correct_shape,
)

from srseg.geometry.separable import resample
from srseg.images.write import stored_dtype
from srseg.inference import export
from srseg.inference.export import is_written, to_native_grid, write_prediction
from tests.preprocessing.hand_plans import hand_plans, itk_properties, managers

TRANSPOSE = (2, 0, 1)
SHAPE = (11, 9, 14)  # plan order, before the crop
BOX = [[1, 10], [0, 7], [3, 14]]
CROPPED = (9, 7, 11)


def hr_properties(spacing=(3.0, 0.75, 0.5), **more):
    return {
        **itk_properties(spacing),
        "shape_before_cropping": SHAPE,
        "bbox_used_for_cropping": BOX,
        "shape_after_cropping_and_before_resampling": CROPPED,
        "srseg": {"slope": [0.1], "intercept": [-2.0], "dtype": ["int16"]},
        **more,
    }


def plans_and_labels(labels=None, **more):
    plans_manager, configuration_manager = managers(
        hand_plans((0.5, 0.75, 3.0), (1, 1, 1), transpose=TRANSPOSE)
    )
    description = {"labels": labels or {"background": 0, "a": 1, "b": 2, "c": 3}, **more}
    return plans_manager, configuration_manager, plans_manager.get_label_manager(description)


def noise(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("shape", [CROPPED, (6, 7, 8), (12, 5, 11)])
@pytest.mark.parametrize("slab_bytes", [1, 3000, 2**28])
@pytest.mark.parametrize("regions", [False, True])
def test_slabs_and_probabilities_give_the_same_labels(monkeypatch, shape, slab_bytes, regions):
    monkeypatch.setattr(export, "_SLAB_BYTES", slab_bytes)
    labels = {"background": 0, "whole": [1, 2, 3], "ab": [1, 2], "b": 2, "c": 3}
    options = {"labels": labels, "regions_class_order": [3, 1, 2, 3]} if regions else {}
    plans_manager, _, label_manager = plans_and_labels(**options)
    logits = noise(4, *shape)
    arguments = (logits, None, hr_properties(), plans_manager, label_manager)
    in_slabs = to_native_grid(*arguments)
    with_probabilities = to_native_grid(*arguments, with_probabilities=True)
    np.testing.assert_array_equal(in_slabs.segmentation, with_probabilities.segmentation)
    assert in_slabs.segmentation.dtype == np.uint8
    assert in_slabs.segmentation.max() == 3


@pytest.mark.parametrize("shape", [CROPPED, (6, 7, 8)])
def test_agrees_with_the_stock_export(shape):
    """nnU-Net's own function, given a resampling that is ours and linear."""
    plans_manager, _, label_manager = plans_and_labels()

    class Configuration:
        spacing = (1.0, 1.0, 1.0)

        @staticmethod
        def resampling_fn_probabilities(logits, new_shape, *_):
            return resample(logits, new_shape, kind="linear")

    logits, properties = noise(4, *shape), hr_properties()
    segmentation, probabilities = convert_predicted_logits_to_segmentation_with_correct_shape(
        logits, plans_manager, Configuration, label_manager, properties, True, 1
    )
    ours = to_native_grid(
        logits, None, properties, plans_manager, label_manager, with_probabilities=True
    )
    np.testing.assert_array_equal(ours.segmentation, segmentation)
    np.testing.assert_allclose(ours.probabilities, probabilities, atol=1e-6)
    assert ours.segmentation.shape == (9, 14, 11)  # the reader's order


def test_sr_image_returns_to_raw_units_with_zeros_outside_the_box():
    plans_manager, _, label_manager = plans_and_labels()
    raw = np.random.default_rng(0).uniform(10, 90, CROPPED).astype(np.float32)
    normalised = torch.from_numpy(0.1 * raw - 2)[None]
    sr_image = to_native_grid(
        noise(4, *CROPPED), normalised, hr_properties(), plans_manager, label_manager
    ).sr_image
    expected = np.zeros(SHAPE, np.float32)
    expected[1:10, 0:7, 3:14] = raw
    np.testing.assert_allclose(sr_image[0], expected.transpose(1, 2, 0), atol=1e-4)


def test_a_padded_training_case_is_cut_to_its_image():
    """The HR box of a training case may end beyond the image, where it was edge-padded."""
    plans_manager, _, label_manager = plans_and_labels()
    properties = hr_properties(bbox_used_for_cropping=[[1, 10], [4, 11], [3, 14]])
    sr_image = noise(1, *CROPPED)
    prediction = to_native_grid(
        noise(4, *CROPPED), sr_image, properties, plans_manager, label_manager
    )
    assert prediction.segmentation.shape == (9, 14, 11)
    at = prediction.sr_image[0].transpose(2, 0, 1)[1:10, 4:9, 3:14]
    np.testing.assert_allclose(at, (sr_image[0, :, :5].numpy() + 2) / 0.1, atol=1e-4)


def test_many_labels_take_16_bits():
    labels = {"background": 0, **{f"l{i}": i for i in range(1, 301)}}
    plans_manager, _, label_manager = plans_and_labels(labels)
    logits = torch.zeros(301, *CROPPED)
    logits[300] = 1
    prediction = to_native_grid(logits, None, hr_properties(), plans_manager, label_manager)
    assert prediction.segmentation.max() == 300


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
