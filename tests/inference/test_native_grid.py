"""From the network's grid to the input's, scale times finer: labels, images, probabilities."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from nnunetv2.inference.export_prediction import (
    convert_predicted_logits_to_segmentation_with_correct_shape,
)

from srseg.geometry.separable import resample
from srseg.inference import native_grid
from srseg.inference.native_grid import boxes_within, to_native_grid
from tests.inference.exported import (
    CROPPED,
    SHAPE,
    hr_properties,
    noise,
    plans_and_labels,
)


@pytest.mark.parametrize("shape", [CROPPED, (6, 7, 8), (12, 5, 11)])
@pytest.mark.parametrize("box_bytes", [1, 3000, 2**28])
@pytest.mark.parametrize("regions", [False, True])
def test_boxes_and_probabilities_give_the_same_labels(monkeypatch, shape, box_bytes, regions):
    monkeypatch.setattr(native_grid, "_BOX_BYTES", box_bytes)
    labels = {"background": 0, "whole": [1, 2, 3], "ab": [1, 2], "b": 2, "c": 3}
    options = {"labels": labels, "regions_class_order": [3, 1, 2, 3]} if regions else {}
    plans_manager, _, label_manager = plans_and_labels(**options)
    logits = noise(4, *shape)
    arguments = (logits, None, hr_properties(), plans_manager, label_manager)
    in_boxes = to_native_grid(*arguments)
    with_probabilities = to_native_grid(*arguments, with_probabilities=True)
    np.testing.assert_array_equal(in_boxes.segmentation, with_probabilities.segmentation)
    assert in_boxes.segmentation.dtype == np.uint8
    assert in_boxes.segmentation.max() == 3


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


def test_a_resampled_sr_image_does_not_depend_on_the_boxes(monkeypatch):
    """Neither for a training case nor for a file, whose own grid carries the result."""
    plans_manager, _, label_manager = plans_and_labels()
    shape = (6, 10, 8)
    frames = [{}, {"native_lr": noise(1, 5, 4, 9).numpy(), "lr_shape": (4, 6, 5)}]
    for frame in frames:
        properties = hr_properties()
        properties["srseg"] = {**properties["srseg"], **frame}
        predictions = []
        for box_bytes in (2**28, 500):
            monkeypatch.setattr(native_grid, "_BOX_BYTES", box_bytes)
            predictions.append(
                to_native_grid(
                    noise(4, *shape), noise(1, *shape), properties, plans_manager, label_manager
                )
            )
        whole, in_boxes = predictions
        np.testing.assert_allclose(in_boxes.sr_image, whole.sr_image, atol=1e-4)
        np.testing.assert_array_equal(in_boxes.segmentation, whole.segmentation)


@pytest.mark.parametrize("most", [1, 7, 60, 10**6])
@pytest.mark.parametrize("steps", [(1, 1, 1), (2, 3, 1)])
def test_boxes_fill_a_grid_once_in_order(most, steps):
    shape, step = (7, 11, 5), int(np.prod(steps))
    boxes = list(
        boxes_within(shape, lambda n: np.prod(n) <= most * step, steps=steps, context=(2, 1, 1))
    )
    count = np.zeros(shape, int)
    for box in boxes:
        count[box] += 1
        assert count[box].size <= most * step
        assert all(axis.start % s == 0 for axis, s in zip(box, steps, strict=True))
    assert (count == 1).all()
    firsts = [box[0].start for box in boxes]
    assert firsts == sorted(firsts)
    assert len(boxes) == 1 or most < 10**6


def test_axes_without_context_are_cut_first_and_long_ones_before_short_ones():
    def lengths(most, context):
        boxes = boxes_within(
            (8, 64, 32), lambda n: np.prod(n) <= most, steps=(1, 1, 1), context=context
        )
        return [axis.stop - axis.start for axis in next(boxes)]

    assert lengths(64 * 32, (0, 4, 4)) == [1, 64, 32]
    assert lengths(8 * 16 * 16, (4, 4, 4)) == [8, 16, 16]
    assert lengths(8 * 32 * 32, (4, 4, 8)) == [8, 32, 32]
