"""Resampling keeps types, places and constants, and repeats nothing."""

from __future__ import annotations

import itertools
from functools import cache

import numpy as np
import pytest
import torch
from batchgenerators.augmentations.utils import resize_segmentation

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
    labels = np.array([1, 1, 1, 2, 5, 5, 5, 2, 5, 2, 2, 2]).reshape(1, 1, 1, 12)
    assert resample_segmentation(labels, (1, 1, 3)).ravel().tolist() == [1, 5, 2]


def drawn_ball(shape, side, centre, radius):
    """Return a (1, ...) int16 ball on a grid of `shape` over a cube of `side`, same units."""
    at = np.meshgrid(*((np.arange(n) + 0.5) * side / n for n in shape), indexing="ij")
    squared = sum((a - c) ** 2 for a, c in zip(at, centre, strict=True))
    return (squared < radius**2).astype(np.int16)[None]


def dice(one, other):
    return 2 * (one & other).sum() / (one.sum() + other.sum())


def nnunets(labels, new_shape):
    """Return what nnU-Net's own resampling makes of (1, Z, Y, X) labels."""
    return resize_segmentation(labels[0], new_shape, order=1)[None]


SIDE = 32
# slices that stay and are halved in themselves: what rounds them at the poles is all ties
HALVED = (32, 16, 16)
# factors from 2.5 to 0.4
BALL_SHAPES = [(13,) * 3, (16,) * 3, (20,) * 3, (24,) * 3, (29,) * 3, (48,) * 3, (64,) * 3]
BALL_SHAPES += [(13, 40, 26), (64, 16, 24), (80, 32, 13), (16, 32, 48), HALVED]


@cache
def resampled_balls(new_shape):
    """Return volumes against what was drawn (per radius 3, 4, 6, 8), our Dice and nnU-Net's."""
    generator = np.random.default_rng(0)
    voxel = np.prod([SIDE / n for n in new_shape])
    volumes, overlaps = [], []
    for radius in (3, 4, 6, 8):
        places = generator.uniform(radius + 1, SIDE - radius - 1, (15, 3))
        places[::3] = np.round(2 * places[::3]) / 2  # on voxel faces and centres, where ties are
        kept = drawn = 0.0
        for centre in places:
            labels = drawn_ball((SIDE,) * 3, SIDE, centre, radius)
            truth = drawn_ball(new_shape, SIDE, centre, radius) == 1
            ours, stock = resample_segmentation(labels, new_shape), nnunets(labels, new_shape)
            kept += ours.sum() * voxel
            drawn += labels.sum()
            overlaps.append([dice(found == 1, truth) for found in (ours, stock)])
        volumes.append(kept / drawn)
    return volumes, *np.mean(overlaps, axis=0)


@pytest.mark.parametrize("new_shape", BALL_SHAPES)
def test_balls_keep_their_volume(new_shape):
    """Curved surfaces neither shrink nor grow, on average over places."""
    volumes, *_ = resampled_balls(new_shape)
    assert np.mean(volumes) == pytest.approx(1, abs=0.05 if new_shape == HALVED else 0.03)
    assert volumes == pytest.approx([1] * 4, abs=0.12)


def test_balls_are_as_near_the_truth_as_nnunets():
    """The truth: the same ball, drawn on the new grid."""
    gain = {shape: np.subtract(*resampled_balls(shape)[1:]) for shape in BALL_SHAPES}
    assert gain.pop(HALVED) > -0.02
    assert min(gain.values()) > 0


@pytest.mark.parametrize("new_size", [12, 14, 15, 16, 18, 24, 27, 32, 54])
@pytest.mark.parametrize("thickness", [1, 2, 3])
def test_no_sheet_vanishes_that_nnunet_keeps(new_size, thickness):
    """Keeps whichever way the axis runs: rounding decides its ties, often one way only."""
    for start in range(1, 35 - thickness):
        labels = np.zeros((1, 3, 36, 4), dtype=np.int16)
        labels[:, :, start : start + thickness] = 1
        both_ways = (labels, np.flip(labels, 2))
        if all(nnunets(sheet, (3, new_size, 4)).any() for sheet in both_ways):
            assert resample_segmentation(labels, (3, new_size, 4)).any(), start


@pytest.mark.parametrize("new_shape", [(16, 16, 16), (20, 20, 20), (27, 27, 27), (40, 20, 20)])
@pytest.mark.parametrize("is_tube", [False, True], ids=["sheet", "tube"])
def test_oblique_thin_structures_last_as_long_as_nnunets(new_shape, is_tube):
    generator = np.random.default_rng(4)
    at = np.stack(np.meshgrid(*([np.arange(40) + 0.5] * 3), indexing="ij"), axis=-1)
    ours = theirs = 0
    for _ in range(6):
        direction = generator.normal(size=3)
        offset = at - generator.uniform(14, 26, 3)
        along = offset @ (direction / np.linalg.norm(direction))
        square = (offset**2).sum(-1) - along**2 if is_tube else along**2
        labels = (square < (1.0 if is_tube else 0.5) ** 2).astype(np.int16)[None]
        ours += resample_segmentation(labels, new_shape).sum()
        theirs += nnunets(labels, new_shape).sum()
    assert ours >= theirs


@pytest.mark.parametrize("new_shape", [(3, 5, 7), (6, 9, 5), (12, 18, 14), (9, 4, 13), (7, 8, 6)])
def test_flips_commute(new_shape):
    """Ties included: the labels are few and the factors small, so there are many."""
    labels = np.random.default_rng(6).integers(-1, 3, (1, 6, 9, 14)).astype(np.int16)
    resampled = resample_segmentation(labels, new_shape)
    for axes in itertools.chain.from_iterable(itertools.combinations((1, 2, 3), k) for k in (1, 3)):
        flipped = resample_segmentation(np.flip(labels, axes).copy(), new_shape)
        np.testing.assert_array_equal(np.flip(flipped, axes), resampled)


def test_a_tie_is_decided_by_place_not_by_label():
    """Off the middle both faces of a structure move the same way, whatever labels they part."""
    for start in (*range(1, 7), *range(14, 20)):
        labels = np.zeros((1, 1, 1, 24), dtype=np.int16)
        labels[..., start : start + 4] = 3
        coarse = resample_segmentation(labels, (1, 1, 12))
        assert (coarse == 3).sum() == 2
        np.testing.assert_array_equal(resample_segmentation(3 - labels, (1, 1, 12)), 3 - coarse)


@pytest.mark.parametrize("new_shape", [(20, 20, 20), (40, 20, 20), (26, 30, 60)])
def test_no_label_gains_by_its_number(new_shape):
    generator = np.random.default_rng(8)
    at = np.stack(np.meshgrid(*([np.arange(40)] * 3), indexing="ij"), axis=-1)[..., None, :]
    before, after = np.zeros(4), np.zeros(4)
    for _ in range(4):  # cells round random points, of four labels
        squared = ((at - generator.uniform(0, 40, (12, 3))) ** 2).sum(-1)
        labels = squared.argmin(-1)[None] % 4
        before += np.bincount(labels.ravel(), minlength=4) / labels.size
        resampled = resample_segmentation(labels, new_shape)
        after += np.bincount(resampled.ravel(), minlength=4) / resampled.size
    np.testing.assert_allclose(after / before, 1, atol=0.015)


def test_a_tie_in_the_very_middle_goes_to_the_higher_label():
    """Flips commute only if the place does not count there; nnU-Net decides so everywhere."""
    for labels in ([4, 1], [1, 4], [1, 4, 4, 1]):
        coarse = resample_segmentation(np.reshape(labels, (1, 1, 1, -1)), (1, 1, len(labels) // 2))
        assert (coarse == 4).all()


def test_an_axis_that_keeps_its_voxels_keeps_its_labels():
    labels = np.random.default_rng(7).integers(0, 4, (1, 9, 1, 1)).repeat(6, 2).repeat(8, 3)
    coarse = resample_segmentation(labels, (9, 3, 20))
    np.testing.assert_array_equal(coarse, labels[:, :, :1, :1].repeat(3, 2).repeat(20, 3))


def test_every_voxel_is_labelled():
    labels = np.random.default_rng(3).integers(0, 5, (1, *SHAPE)).astype(np.int8)
    for shape in ((13, 4, 10), (3, 3, 3), (1, 20, 2)):
        resampled = resample_segmentation(labels, shape)
        assert resampled.shape == (1, *shape)
        assert set(np.unique(resampled)) <= set(range(5))


def test_unknown_kind_lists_the_known():
    with pytest.raises(ValueError, match="known: cubic, lanczos, linear, nearest"):
        resample_image(np.zeros((1, *SHAPE)), (3, 3, 3), kind="spline")
