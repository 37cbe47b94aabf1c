"""Answers by hand on voxels of 3 x 2 x 1 mm, and all four cases of empty masks."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import ndimage
from skimage.measure import marching_cubes, mesh_surface_area

from srseg.metrics.segmentation import dice, hd95, nsd, surface_distances, volume_error

SPACING = (3.0, 2.0, 1.0)
SHAPE = (9, 12, 15)
# A voxel's surface cuts each of its 8 corners by a triangle through the centres of three edges,
# which are 1.5, 1 and 0.5 mm away: area 0.5 * sqrt((1.5 * 1)^2 + (1 * 0.5)^2 + (1.5 * 0.5)^2).
CORNER_AREA = 0.875


def box(start=(3, 4, 5), size=(1, 1, 1), shape=SHAPE) -> np.ndarray:
    mask = np.zeros(shape, dtype=bool)
    mask[tuple(slice(a, a + n) for a, n in zip(start, size, strict=True))] = True
    return mask


def blobs(shape, seed) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(size=shape)
    return ndimage.gaussian_filter(noise, 1.5) > 0.03


EMPTY = np.zeros(SHAPE, dtype=bool)


def test_one_voxel_has_eight_corners():
    distances = surface_distances(box(), box(), SPACING)
    assert distances.predicted_areas == pytest.approx([CORNER_AREA] * 8)
    assert distances.predicted_mm.tolist() == [0.0] * 8


def test_area_of_a_box():
    """Planes between the centres of the outer voxels, bevelled edges, cut corners."""
    nz, ny, nx = 3, 4, 5
    planes = 2 * ((ny - 1) * (nx - 1) * 2 + (nz - 1) * (nx - 1) * 3 + (nz - 1) * (ny - 1) * 6)
    bevels = 4 * (
        (nx - 1) * 1 * math.hypot(3, 2) / 2
        + (ny - 1) * 2 * math.hypot(3, 1) / 2
        + (nz - 1) * 3 * math.hypot(2, 1) / 2
    )
    mask = box(size=(nz, ny, nx))
    areas = surface_distances(mask, mask, SPACING).reference_areas
    assert areas.sum() == pytest.approx(planes + bevels + 8 * CORNER_AREA)


def test_area_agrees_with_the_mesh_of_the_whole_mask():
    z, y, x = np.ogrid[:15, :20, :23]
    ball = ((z - 7) * 3) ** 2 + ((y - 9.3) * 2) ** 2 + (x - 11.2) ** 2 < 10**2
    corners, triangles, _, _ = marching_cubes(
        np.pad(ball, 1).astype(np.float32), 0.5, spacing=SPACING, method="lorensen"
    )
    areas = surface_distances(ball, ball, SPACING).predicted_areas
    assert areas.sum() == pytest.approx(mesh_surface_area(corners, triangles), rel=1e-6)


@pytest.mark.parametrize(("axis", "mm"), [(0, 3.0), (1, 2.0), (2, 1.0)])
def test_two_voxels_two_apart(axis, mm):
    """The near corners are one voxel from the other voxel's, the far ones two."""
    start = [3, 4, 5]
    start[axis] += 2
    distances = surface_distances(box(), box(start), SPACING)
    assert sorted(distances.predicted_mm) == pytest.approx([mm] * 4 + [2 * mm] * 4)
    assert sorted(distances.reference_mm) == pytest.approx([mm] * 4 + [2 * mm] * 4)
    assert hd95(distances) == pytest.approx(2 * mm)
    assert nsd(distances, tolerance_mm=0.99 * mm) == 0
    assert nsd(distances, tolerance_mm=mm) == pytest.approx(0.5)
    assert nsd(distances, tolerance_mm=2 * mm) == 1


def test_diagonal_distance():
    distances = surface_distances(box((3, 4, 5)), box((5, 6, 5)), SPACING)
    assert hd95(distances) == pytest.approx(math.hypot(6, 4))


def test_a_distance_equal_to_the_tolerance_is_within_it():
    """Three voxels of 0.1 mm are 0.30000000000000004."""
    distances = surface_distances(box((3, 4, 2)), box((3, 4, 6)), (3.0, 2.0, 0.1))
    assert nsd(distances, tolerance_mm=0.3) == pytest.approx(0.5)


def test_outliers_count_by_their_area():
    """A far voxel holds 7 of the prediction's 437 mm^2, below 5 %; a far block holds more."""
    reference = box((1, 1, 1), (6, 8, 6), shape=(9, 12, 30))
    far_voxel = reference | box((3, 4, 28), shape=reference.shape)
    far_block = reference | box((2, 3, 26), (4, 4, 3), shape=reference.shape)
    assert hd95(surface_distances(far_voxel, reference, SPACING)) == 0
    assert hd95(surface_distances(far_block, reference, SPACING)) > 19
    assert hd95(surface_distances(reference, far_block, SPACING)) > 19  # the larger direction


def test_a_mask_at_the_border_is_closed_there():
    at_border = box((0, 0, 0), (3, 4, 5))
    inside = box((2, 2, 2), (3, 4, 5))
    areas = [surface_distances(m, m, SPACING).predicted_areas.sum() for m in (at_border, inside)]
    assert areas[0] == pytest.approx(areas[1])


@pytest.mark.parametrize("seed", range(3))
def test_mask_and_complement_share_their_inner_surface(seed):
    """Also where voxels meet only diagonally: both readings of such a block have one area."""
    mask = blobs((8, 9, 10), seed) & (np.random.default_rng(seed).random((8, 9, 10)) > 0.3)
    framed = np.pad(mask, 1)
    inner = surface_distances(framed, framed, SPACING).predicted_areas.sum()
    outside = ~np.pad(framed, 1)
    whole = np.ones(outside.shape, dtype=bool)
    outer = surface_distances(whole, whole, SPACING).predicted_areas.sum()
    both = surface_distances(outside, outside, SPACING).predicted_areas.sum()
    assert both == pytest.approx(inner + outer)


@pytest.mark.parametrize("seed", range(4))
def test_laws_on_random_masks(seed):
    one, other = blobs((11, 14, 13), seed), blobs((11, 14, 13), seed + 100)
    forth = surface_distances(one, other, SPACING)
    back = surface_distances(other, one, SPACING)
    flipped = surface_distances(one[::-1, :, ::-1], other[::-1, :, ::-1], SPACING)
    for a, b in ((forth, back), (forth, flipped)):
        assert hd95(a) == pytest.approx(hd95(b))
        assert nsd(a, tolerance_mm=2.0) == pytest.approx(nsd(b, tolerance_mm=2.0))
    by_tolerance = [nsd(forth, tolerance_mm=mm) for mm in (0, 1, 2, 3, 1000)]
    assert by_tolerance == sorted(by_tolerance)
    assert by_tolerance[-1] == 1
    doubled = surface_distances(one, other, [2 * mm for mm in SPACING])
    assert hd95(doubled) == pytest.approx(2 * hd95(forth))


@pytest.mark.parametrize(
    ("predicted", "reference", "expected"),
    [
        (EMPTY, EMPTY, (math.nan, math.nan, math.nan, math.nan)),
        (box(), EMPTY, (0, 0, math.sqrt(27**2 + 24**2 + 15**2), math.nan)),
        (EMPTY, box(), (0, 0, math.sqrt(27**2 + 24**2 + 15**2), -1)),
        (box(), box(), (1, 1, 0, 0)),
    ],
    ids=["both empty", "reference empty", "prediction empty", "none empty"],
)
def test_empty_masks(predicted, reference, expected):
    distances = surface_distances(predicted, reference, SPACING)
    actual = (
        dice(predicted, reference),
        nsd(distances, tolerance_mm=1.0),
        hd95(distances),
        volume_error(predicted, reference),
    )
    assert actual == pytest.approx(expected, nan_ok=True)


def test_dice_and_volume_error_by_hand():
    predicted, reference = box(size=(2, 3, 4)), box((3, 4, 6), (2, 3, 6))
    assert dice(predicted, reference) == pytest.approx(2 * 18 / (24 + 36))
    assert volume_error(predicted, reference) == pytest.approx(-1 / 3)
    assert volume_error(reference, predicted) == pytest.approx(0.5)


def test_a_single_slice_is_measured_in_its_plane():
    """Contours of 2 x 1 mm pixels; the 999 mm of nnU-Net's 2-D readers play no part."""
    one = box((0, 4, 5), shape=(1, 12, 15))
    other = box((0, 4, 8), shape=(1, 12, 15))
    distances = surface_distances(one, other, (999.0, 2.0, 1.0))
    assert distances.predicted_areas == pytest.approx([math.hypot(2, 1) / 2] * 4)
    assert sorted(distances.predicted_mm) == pytest.approx([2, 2, 3, 3])
    nothing = np.zeros_like(one)
    assert hd95(surface_distances(one, nothing, (999.0, 2.0, 1.0))) == math.hypot(24, 15)
    square = box((0, 3, 3), (1, 4, 5), shape=(1, 12, 15))
    length = surface_distances(square, square, (999.0, 2.0, 1.0)).reference_areas.sum()
    assert length == pytest.approx(2 * 3 * 2 + 2 * 4 * 1 + 4 * math.hypot(2, 1) / 2)


def test_diagonal_pixels_have_two_corners():
    mask = np.zeros((1, 6, 6), dtype=bool)
    mask[0, 2, 2] = mask[0, 3, 3] = True
    for plane in (mask, mask[:, :, ::-1]):
        areas = surface_distances(plane, plane, (9.0, 2.0, 1.0)).predicted_areas
        assert sorted(areas) == pytest.approx([math.hypot(2, 1) / 2] * 6 + [math.hypot(2, 1)])


@pytest.mark.parametrize("function", [dice, volume_error])
def test_shapes_must_agree(function):
    with pytest.raises(ValueError, match=r"differ in shape: \(2, 3, 4\) and \(1, 3, 4\)"):
        function(np.zeros((2, 3, 4)), np.zeros((1, 3, 4)))


@pytest.mark.parametrize(
    ("shape", "spacing", "message"),
    [
        ((3, 4), SPACING, r"masks must be \(Z, Y, X\), got shape \(3, 4\)"),
        ((2, 3, 4), (1.0, 1.0), "spacing must be three positive numbers"),
        ((2, 3, 4), (1.0, 0.0, 1.0), "spacing must be three positive numbers"),
    ],
)
def test_what_distances_need(shape, spacing, message):
    with pytest.raises(ValueError, match=message):
        surface_distances(np.zeros(shape), np.zeros(shape), spacing)


def test_tolerance_must_not_be_negative():
    distances = surface_distances(box(), box(), SPACING)
    with pytest.raises(ValueError, match="at least 0 mm, got -1"):
        nsd(distances, tolerance_mm=-1)
