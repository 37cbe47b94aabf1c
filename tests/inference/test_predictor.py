"""The predictor on arrays, and how folds come together."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from srseg.geometry.separable import resample
from srseg.inference.model_folder import load_checkpoint
from srseg.inference.predictor import Predictor
from srseg.networks.output import JointOutput
from tests.inference.known_networks import (
    InterpolatingNetwork,
    NearestNetwork,
    dataset_json,
    known_predictor,
    repeated,
)
from tests.inference.model_folders import LR_SPACING, write_model

SCALE = (3, 1, 2)
SPACING = (6.0, 0.75, 1.0)


def raw_image(*shape):
    return np.random.default_rng(0).normal(50, 10, shape).astype(np.float32)


def test_arrays_come_back_on_the_finer_grid():
    image = raw_image(1, 5, 8, 7)
    predictor = known_predictor(NearestNetwork(SCALE), SCALE, hr_spacing=(2.0, 0.75, 0.5))
    prediction = predictor.predict(image, SPACING, with_probabilities=True)
    np.testing.assert_allclose(prediction.sr_image, repeated(image, SCALE), atol=1e-4)
    expected_labels = repeated(image[0], SCALE) > image.mean()
    np.testing.assert_array_equal(prediction.segmentation, expected_labels)
    assert prediction.spacing == (2.0, 0.75, 0.5)
    np.testing.assert_allclose(prediction.probabilities.sum(axis=0), 1, atol=1e-5)
    np.testing.assert_array_equal(prediction.probabilities[1] > 0.5, expected_labels)
    assert predictor.predict(image, SPACING).probabilities is None


@pytest.mark.parametrize("lr_spacing", [(3.2, 2.0, 0.8), (1.3, 1.1, 1.4), (6.1, 0.9, 0.6)])
def test_an_input_off_the_plan_keeps_its_own_detail(lr_spacing):
    """What a network that only interpolates returns is the input's own interpolation.

    The way to the plan's grid and back would cost the detail of a finer axis and blur the slices
    of a coarser one.
    """
    scale = (1, 2, 2)
    predictor = known_predictor(InterpolatingNetwork(scale), scale, patch_size=(84, 60, 60))
    image = raw_image(1, 25, 28, 27)
    actual = predictor.predict(image, lr_spacing).sr_image
    native = torch.from_numpy(image).float()
    expected = resample(native, actual.shape[1:], kind="lanczos").numpy()
    # the network sees repeated edges, and the kernel reaches 6 voxels; bfloat16 in the network
    # leaves three digits of what it added to the interpolation, here 0
    inner = (..., *(slice(10 * s, -10 * s) for s in scale))
    np.testing.assert_allclose(actual[inner], expected[inner], atol=4e-3 * np.ptp(image))


def test_image_is_not_changed_by_predicting():
    image = raw_image(1, 5, 8, 7)
    before = image.copy()
    known_predictor(NearestNetwork(SCALE), SCALE).predict(image, SPACING)
    np.testing.assert_array_equal(image, before)


def test_an_integer_image_and_one_of_zeros():
    predictor = known_predictor(NearestNetwork(SCALE), SCALE, hr_spacing=(2.0, 0.75, 0.5))
    integers = np.arange(5 * 8 * 7, dtype=np.int16).reshape(1, 5, 8, 7)
    prediction = predictor.predict(integers, SPACING)
    np.testing.assert_allclose(prediction.sr_image, repeated(integers, SCALE), atol=1e-3)
    zeros = predictor.predict(np.zeros((1, 5, 8, 7)), SPACING)
    assert not zeros.sr_image.any()
    assert not zeros.segmentation.any()


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (1, 2, 1, 30), (1, 40, 3, 5)])
def test_very_small_and_very_long_images(shape):
    image = raw_image(*shape)
    predictor = known_predictor(NearestNetwork(SCALE), SCALE, hr_spacing=(2.0, 0.75, 0.5))
    prediction = predictor.predict(image, SPACING)
    np.testing.assert_allclose(prediction.sr_image, repeated(image, SCALE), atol=1e-4)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (raw_image(2, 5, 8, 7), r"has 2 channel\(s\), but dataset.json declares 1"),
        (raw_image(5, 8, 7), r"must be \(C, Z, Y, X\)"),
        (np.full((1, 5, 8, 7), np.nan), "NaN or infinite"),
    ],
)
def test_unusable_arrays_are_refused(image, message):
    predictor = known_predictor(NearestNetwork(SCALE), SCALE)
    with pytest.raises(ValueError, match=message):
        predictor.predict(image, SPACING)


def test_preprocessed_images_must_have_the_model_s_channels():
    predictor = known_predictor(NearestNetwork(SCALE), SCALE)
    with pytest.raises(ValueError, match=r"must be \(C, z, y, x\) with 1 channel"):
        predictor.predict_preprocessed(torch.zeros(2, 5, 8, 7))


def test_answers_that_are_not_finite_are_refused():
    class Diverged(NearestNetwork):
        def forward(self, lr_image):
            out = super().forward(lr_image)
            return JointOutput(out.seg, out.sr * float("nan"))

    predictor = known_predictor(Diverged(SCALE), SCALE)
    with pytest.raises(RuntimeError, match="NaN or infinite"):
        predictor.predict_preprocessed(torch.zeros(1, 5, 8, 7))


def test_regions_follow_the_class_order():
    """Label 2 inside label 1: both regions hold above the mean, the last one written wins."""
    regions = {"background": 0, "whole": [1, 2], "core": 2}
    description = dataset_json(labels=regions, regions_class_order=[1, 2])

    class Regions(NearestNetwork):
        def forward(self, lr_image):
            image = super().forward(lr_image).sr
            return JointOutput([torch.cat((image, image - 1), 1)], image)

    image = raw_image(1, 5, 8, 7)
    predictor = known_predictor(
        Regions(SCALE), SCALE, hr_spacing=(2.0, 0.75, 0.5), description=description
    )
    prediction = predictor.predict(image, SPACING)
    normalised = repeated((image[0] - image.mean()) / image.std(), SCALE)
    expected = np.where(normalised > 1, 2, np.where(normalised > 0, 1, 0))
    np.testing.assert_array_equal(prediction.segmentation, expected)
    with_probabilities = predictor.predict(image, SPACING, with_probabilities=True)
    np.testing.assert_array_equal(with_probabilities.segmentation, expected)
    assert len(with_probabilities.probabilities) == 2


def test_the_ignore_label_is_never_predicted():
    description = dataset_json(labels={"background": 0, "organ": 1, "ignore": 2})
    predictor = known_predictor(NearestNetwork(SCALE), SCALE, description=description)
    assert set(np.unique(predictor.predict(raw_image(1, 5, 8, 7), SPACING).segmentation)) == {0, 1}


def test_folds_are_averaged(tmp_path):
    folder = write_model(tmp_path, folds=(0, 1, 2))
    lr_image = torch.from_numpy(raw_image(1, 5, 9, 7)) / 50 - 1
    options = {"device": "cpu", "autocast": False}
    single = [
        torch.cat(
            Predictor.from_model_folder(folder, [k], **options).predict_preprocessed(lr_image)
        )
        for k in range(3)
    ]
    together = Predictor.from_model_folder(folder, **options).predict_preprocessed(lr_image)
    torch.testing.assert_close(torch.cat(together), sum(single) / 3)
    assert not torch.allclose(single[0], single[1])


def test_a_model_folder_and_its_network_in_memory_agree(tmp_path):
    folder = write_model(tmp_path)
    predictor = Predictor.from_model_folder(folder, device="cpu")
    network = predictor._forward.network
    network.load_state_dict(
        load_checkpoint(folder / "fold_0/checkpoint_final.pth")["network_weights"]
    )
    in_memory = Predictor.from_network(
        network,
        predictor.plans_manager,
        predictor.configuration_manager,
        predictor.dataset_json,
        mirroring_axes=(0, 1, 2),
        device="cpu",
    )
    image = raw_image(1, 5, 9, 7)
    first, second = (p.predict(image, LR_SPACING) for p in (predictor, in_memory))
    np.testing.assert_array_equal(first.sr_image, second.sr_image)
    assert first.sr_image.shape == (1, 5, 18, 14)


def test_a_misspelt_setting_is_refused_before_files_are_read(tmp_path):
    with pytest.raises(TypeError, match="step_sice"):
        Predictor.from_model_folder(tmp_path / "absent", step_sice=0.5)


def test_a_network_without_sr_head():
    predictor = known_predictor(NearestNetwork(SCALE, sr_head=False), SCALE)
    assert predictor.predict(raw_image(1, 5, 8, 7), SPACING).sr_image is None
