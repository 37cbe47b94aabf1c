"""Resampling keeps types, places and constants, and repeats nothing."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from srseg.preprocessing.resampling import resample_image, resample_segmentation

SHAPE = (6, 9, 7)


def ball(shape, radius=0.35):
    """Return a (1, ...) bool ball in units of the field of view, off its centre."""
    at = np.meshgrid(*((np.arange(n) + 0.5) / n for n in shape), indexing="ij")
    squared = sum((a - c) ** 2 for a, c in zip(at, (0.45, 0.5, 0.55), strict=True))
    return (squared < radius**2)[None]


@pytest.mark.parametrize("kind", [np.asarray, torch.as_tensor])
def test_image_comes_back_in_its_own_type(kind):
    image = kind(np.random.default_rng(0).random((2, *SHAPE)))
    resampled = resample_image(image, (4, 12, 7), (1, 1, 1), (2, 2, 2))
    assert type(resampled) is type(image)
    assert tuple(resampled.shape) == (2, 4, 12, 7)


def test_equal_shapes_are_left_alone():
    image, labels = np.zeros((1, *SHAPE)), np.zeros((1, *SHAPE), dtype=np.int8)
    assert resample_image(image, np.array(SHAPE)) is image
    assert resample_segmentation(labels, SHAPE) is labels


def test_a_thick_axis_is_interpolated_too():
    """nnU-Net would repeat slices here: spacing 5 mm against 1 mm."""
    ramp = np.arange(6.0)[None, :, None, None] + np.zeros(SHAPE)
    fine = resample_image(ramp, (24, 9, 7), (5, 1, 1), (1.25, 1, 1))
    assert len(np.unique(np.round(fine[0, 8:16, 0, 0], 4))) == 8


def test_labels_keep_their_place():
    fine = ball((24, 45, 28)).astype(np.int16) * 3
    coarse = resample_segmentation(fine, (12, 15, 14))
    assert coarse.dtype == np.int16
    assert set(np.unique(coarse)) == {0, 3}
    expected = ball((12, 15, 14))
    assert ((coarse == 3) != expected).mean() < 0.02
    back = resample_segmentation(coarse, (24, 45, 28))
    dice = 2 * ((back == 3) & (fine == 3)).sum() / ((back == 3).sum() + (fine == 3).sum())
    assert dice > 0.93


def test_negative_and_distant_labels_survive():
    labels = np.full((1, *SHAPE), -1, dtype=np.int16)
    labels[:, 2:] = 0
    labels[:, 4:] = 300
    fine = resample_segmentation(labels, (12, 18, 7))
    np.testing.assert_array_equal(fine, labels.repeat(2, axis=1).repeat(2, axis=2))


def test_the_largest_share_wins():
    """One coarse voxel of four fine ones in a row: the label that fills most of it."""
    labels = np.array([1, 1, 1, 2, 5, 5, 2, 2, 5, 2, 2, 2]).reshape(1, 1, 1, 12)
    assert resample_segmentation(labels, (1, 1, 3)).ravel().tolist() == [1, 2, 2]


def test_a_tie_goes_to_the_lower_label():
    labels = np.array([4, 1]).reshape(1, 1, 1, 2)
    assert resample_segmentation(labels, (1, 1, 1)).item() == 1


def test_every_voxel_is_labelled():
    labels = np.random.default_rng(3).integers(0, 5, (1, *SHAPE)).astype(np.int8)
    for shape in ((13, 4, 10), (3, 3, 3), (1, 20, 2)):
        resampled = resample_segmentation(labels, shape)
        assert resampled.shape == (1, *shape)
        assert set(np.unique(resampled)) <= set(range(5))


def test_unknown_kind_lists_the_known():
    with pytest.raises(ValueError, match="known: cubic, linear, nearest"):
        resample_image(np.zeros((1, *SHAPE)), (3, 3, 3), kind="spline")
