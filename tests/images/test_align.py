"""Points give the motion exactly, and a header takes it without touching a voxel."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk

from srseg.images.align import (
    fit_points,
    label_centroids,
    moved_header,
    on_fixed_grid,
    read_landmarks,
    rigid_transform,
    shared_share,
)
from tests.images.moved_volumes import (
    FIXED,
    MOVING,
    Motion,
    empty,
    errors_mm,
    filled,
    scans,
    voxel_points,
)

MOTION = Motion((24, -31, 47), (35.0, -22.0, 13.0))
SLIGHT = Motion((3, 4, 5), (1.0, 2.0, 3.0))
POINTS = np.random.default_rng(3).uniform(-40, 40, (6, 3))


def named(points):
    return {f"p{number}": point for number, point in enumerate(points)}


def transform_of(motion):
    return rigid_transform(motion.rotation, motion.centre_xyz, motion.centre_xyz + motion.shift_mm)


@pytest.mark.parametrize("count", [3, 6])
def test_points_give_the_motion_exactly(count):
    fit = fit_points(named(POINTS[:count]), named(MOTION(POINTS[:count])))
    assert errors_mm(fit.transform, MOTION).max() < 1e-6
    assert fit.num_points == count
    assert fit.rms_mm < 1e-6


def test_points_go_by_name_and_what_one_side_lacks_is_left_out():
    fixed = named(POINTS) | {"only here": np.full(3, 500.0)}
    moving = dict(reversed(named(MOTION(POINTS)).items())) | {"or there": np.zeros(3)}
    fit = fit_points(fixed, moving)
    assert fit.num_points == 6
    assert errors_mm(fit.transform, MOTION).max() < 1e-6


def test_no_small_turn_or_shift_fits_noisy_points_better():
    noisy = MOTION(POINTS) + np.random.default_rng(5).normal(0, 2, POINTS.shape)
    fit = fit_points(named(POINTS), named(noisy))

    def squared(rotation, shift):
        mapped = np.array([fit.transform.TransformPoint(point) for point in POINTS])
        middle = mapped.mean(0)
        return (((mapped - middle) @ rotation.T + middle + shift - noisy) ** 2).sum()

    best = squared(np.eye(3), 0)
    assert fit.rms_mm == pytest.approx(np.sqrt(best / 6))
    for axis in np.eye(3):
        for sign in (-1, 1):
            assert squared(np.eye(3), sign * 0.05 * axis) > best
            assert squared(Motion(sign * axis, (0, 0, 0)).rotation, 0) > best


def test_mirrored_points_give_a_rotation_all_the_same():
    fit = fit_points(named(POINTS), named(POINTS * (-1, 1, 1)))
    assert np.linalg.det(np.reshape(fit.transform.GetMatrix(), (3, 3))) == pytest.approx(1)
    assert fit.rms_mm > 5


@pytest.mark.parametrize(
    ("fixed", "message"),
    [
        (POINTS[:2], r"at least 3 points that both sides have, got 2 \(p0, p1\)"),
        (POINTS[:0], "got 0"),
        (POINTS[:1] + np.arange(5)[:, None], "5 fixed points lie on a line"),
        (np.ones((4, 3)), "4 fixed points lie on a line or in one place"),
    ],
)
def test_points_that_leave_the_motion_open(fixed, message):
    with pytest.raises(ValueError, match=message):
        fit_points(named(fixed), named(MOTION(fixed)))


def test_every_voxel_of_a_moved_header_lies_where_the_transform_says():
    moving = empty(*MOVING)
    moved = moved_header(moving, transform_of(MOTION))
    np.testing.assert_allclose(MOTION(voxel_points(moved)), voxel_points(moving), atol=1e-9)
    assert moved.GetSpacing() == moving.GetSpacing()
    np.testing.assert_allclose(moving.GetOrigin(), empty(*MOVING).GetOrigin())


def test_a_moved_header_is_what_itks_own_filter_makes():
    moving = empty(*MOVING)
    moved = moved_header(moving, transform_of(MOTION))
    itks = sitk.TransformGeometry(moving, transform_of(MOTION))
    np.testing.assert_allclose(moved.GetOrigin(), itks.GetOrigin(), atol=1e-9)
    np.testing.assert_allclose(moved.GetDirection(), itks.GetDirection(), atol=1e-12)


def test_resampling_equals_resampling_the_moved_header():
    motion = Motion((6, -8, 10), (5.0, -4.0, 6.0))
    fixed, moving = scans(motion)
    direct = sitk.GetArrayFromImage(on_fixed_grid(moving, fixed, transform_of(motion)))
    moved = moved_header(moving, transform_of(motion))
    through = sitk.GetArrayFromImage(on_fixed_grid(moved, fixed, sitk.Transform(3, 1)))
    np.testing.assert_allclose(direct, through, atol=1e-4)
    middle = (slice(8, -8), slice(12, -12), slice(12, -12))
    truth = sitk.GetArrayFromImage(fixed)
    assert np.abs(direct - truth)[middle].max() < 0.02 * truth.max()
    assert np.abs(sitk.GetArrayFromImage(moving) - truth[:1, :1, :1]).max() > 0.5


@pytest.mark.parametrize("kind", [sitk.sitkUInt8, sitk.sitkInt16, sitk.sitkFloat64])
def test_the_pixel_type_stays_and_nothing_wraps_round(kind):
    # bright and dark halves: the B-spline overshoots on both sides of the edge
    moving = empty(*MOVING)
    values = np.where(voxel_points(moving)[..., 0] > 0, 255, 0).astype(np.float32)
    moving = sitk.Cast(filled(moving, values), kind)
    moved = on_fixed_grid(moving, empty(*FIXED), transform_of(SLIGHT))
    assert moved.GetPixelID() == kind
    array = sitk.GetArrayFromImage(moved)
    assert array.shape == FIXED[0][::-1]
    linear = sitk.Resample(moving, moved, transform_of(SLIGHT), sitk.sitkLinear)
    edges = np.abs(array.astype(float) - sitk.GetArrayFromImage(linear))
    assert edges.max() < 100  # what wraps round is 200 off
    if kind != sitk.sitkUInt8:
        assert array.max() > 260


def test_labels_keep_their_values_by_the_nearest_voxel():
    moving = empty(*MOVING)
    labels = filled(moving, np.where(voxel_points(moving)[..., 0] > 0, 7, 3).astype(np.uint8))
    motion = Motion((6, -8, 10), (5.0, -4.0, 6.0))
    moved = on_fixed_grid(labels, empty(*FIXED), transform_of(motion), is_label=True)
    array = sitk.GetArrayFromImage(moved).T
    assert array.dtype == np.uint8
    assert set(np.unique(array)) == {0, 3, 7}
    world_x = motion(voxel_points(moved))[..., 0]
    clear = (array > 0) & (np.abs(world_x) > 2)
    np.testing.assert_array_equal(array[clear], np.where(world_x > 0, 7, 3)[clear])


def test_what_two_scans_share():
    image = empty((40, 30, 20), (1.0, 1.5, 2.0), (0, 0, 0), (0.0, 0.0, 0.0))
    half = empty((40, 30, 20), (1.0, 1.5, 2.0), (0, 0, 0), (20.0, 0.0, 0.0))
    inside = empty((10, 8, 6), (1.0, 1.5, 2.0), (20, 10, 0), (0.0, 0.0, 0.0))
    apart = empty((40, 30, 20), (1.0, 1.5, 2.0), (0, 0, 0), (0.0, 0.0, 41.0))
    assert shared_share(image, half) == pytest.approx(0.5, abs=0.05)
    assert shared_share(image, inside) == shared_share(inside, image) == 1
    assert shared_share(image, apart) == 0
    back = Motion((0, 0, 0), (0.0, 0.0, 41.0))
    assert shared_share(image, apart, transform_of(back)) == 1


def test_centroids_in_the_world():
    image = empty(*FIXED)
    points = voxel_points(image)
    array = np.zeros(FIXED[0], np.uint8)
    array[3:7, 10:15, 4:9], array[20:31, 5:8, 11:13] = 4, 9
    found = label_centroids(filled(image, array))
    assert set(found) == {"4", "9"}
    for label, point in found.items():
        np.testing.assert_allclose(point, points[array == int(label)].mean(0), atol=1e-9)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("1,2,3\n4,5,6.5\n", ["1", "2"]),
        ("x, y, z\n1,2,3\n\n4,5,6.5", ["1", "2"]),
        ("# Slicer\nname,z,X,y,colour\napex,3,1,2,red\nbase,6.5,4,5,blue\n", ["apex", "base"]),
    ],
)
def test_landmark_files(tmp_path, text, names):
    file = tmp_path / "points.csv"
    file.write_text(text)
    points = read_landmarks(file, space="lps")
    assert list(points) == names
    np.testing.assert_array_equal(list(points.values()), [[1, 2, 3], [4, 5, 6.5]])
    in_ras = read_landmarks(file, space="ras")
    np.testing.assert_array_equal(list(in_ras.values()), [[-1, -2, 3], [-4, -5, 6.5]])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1,2,3\n4,5\n", r"point 2 of .*points.csv must be x,y,z in mm, got '4,5'"),
        ("1,2,3,4\n", "point 1 .* other columns need a heading"),
        ("1,2,left\n", "point 1 .* got '1,2,left'"),
        ("1,2,nan\n", "point 1 .* got '1,2,nan'"),
        ("name,x,y,z\na,1,2,3\na,4,5,6\n", "two points named 'a'"),
    ],
)
def test_landmark_files_that_cannot_be_used(tmp_path, text, message):
    file = tmp_path / "points.csv"
    file.write_text(text)
    with pytest.raises(ValueError, match=message):
        read_landmarks(file, space="lps")
    with pytest.raises(ValueError, match="unknown space of landmarks 'las'; known: lps, ras"):
        read_landmarks(file, space="las")
    with pytest.raises(FileNotFoundError, match="none.csv does not exist"):
        read_landmarks(tmp_path / "none.csv", space="lps")
