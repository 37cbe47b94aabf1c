"""A view shows the right place: a ramp of coordinates stays one, a half-space keeps its side."""

import numpy as np
import pytest
import torch

from srseg.training.spatial import (
    INTERPOLATION_HALO,
    Frame,
    View,
    affine_matrix,
    rotation_rule,
)
from tests.training.synthetic import coordinate_ramp, smooth_noise

CASE = (18, 23, 21)
PATCH = (7, 10, 8)
SPACING = (2.0, 0.7, 1.1)
CENTRE = np.array([8.0, 11.0, 10.5])
TURNED = affine_matrix((0.3, -0.2, 0.25), 1.1, SPACING, in_plane=False)
IN_PLANE = affine_matrix((0.9, 0, 0), 0.8, SPACING, in_plane=True)
INTERPOLATIONS = sorted(INTERPOLATION_HALO)


def sampled(image, view, interpolation, shape=PATCH, halo=None):
    """Return the frame's image read from the smallest region, and its voxels' case indices."""
    first = -(np.array(shape) - 1) / 2
    frame = Frame(view, first, shape)
    start, stop = frame.source_box(INTERPOLATION_HALO[interpolation] if halo is None else halo)
    region = torch.from_numpy(image[(slice(None), *map(slice, start, stop))].copy())
    index = np.moveaxis(np.indices(shape), 0, -1) + first
    return frame.image(region, start, interpolation), index @ view.matrix.T + view.centre


@pytest.mark.parametrize(
    ("hr_patch", "in_plane", "degrees"),
    [
        ((40, 56, 40), False, 30.0),
        ((10, 96, 80), True, 180.0),
        ((32, 96, 90), False, 30.0),  # by hand: 96 / 32 = 3 is not above 3
        ((96, 90), True, 180.0),
        ((96, 40), True, 15.0),
    ],
)
def test_thin_patches_turn_in_their_plane_only(hr_patch, in_plane, degrees):
    rule = rotation_rule(hr_patch)
    assert (rule.in_plane, rule.degrees) == (in_plane, degrees)


@pytest.mark.parametrize("in_plane", [False, True])
def test_turning_is_rigid_in_mm(in_plane):
    matrix = affine_matrix((0.4, -0.7, 0.2), 1.0, SPACING, in_plane=in_plane)
    mm = np.diag(SPACING) @ matrix @ np.diag(1 / np.array(SPACING))
    np.testing.assert_allclose(mm @ mm.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(mm) == pytest.approx(1)


def test_zoom_is_alike_on_all_axes_and_in_plane_leaves_the_first_alone():
    zoomed = affine_matrix([0] * 3, 1.3, SPACING, in_plane=False)
    np.testing.assert_allclose(zoomed, 1.3 * np.eye(3))
    in_plane = affine_matrix([0] * 3, 1.3, SPACING, in_plane=True)
    np.testing.assert_allclose(in_plane, np.diag([1, 1.3, 1.3]))


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@pytest.mark.parametrize("matrix", [TURNED, IN_PLANE], ids=["turned", "in_plane"])
def test_a_coordinate_ramp_stays_one(matrix, interpolation):
    ramp = coordinate_ramp(CASE, (1, 1, 1))
    image, index = sampled(ramp, View(matrix, CENTRE, CASE), interpolation)
    # a spline's prefilter rings at the edge that is repeated, 0.27 per voxel
    atol = 1e-2 if interpolation == "cubic" else 1e-4
    np.testing.assert_allclose(np.moveaxis(image.numpy(), 0, -1), index, atol=atol)


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@pytest.mark.parametrize("matrix", [TURNED, IN_PLANE], ids=["turned", "in_plane"])
def test_outside_the_case_its_edge_is_repeated(matrix, interpolation):
    ramp = coordinate_ramp(CASE, (1, 1, 1))
    view = View(matrix, np.array([2.0, 20.0, 1.5]), CASE)
    image, index = sampled(ramp, view, interpolation, shape=(15, 16, 14))
    expected = np.clip(index, 0, np.array(CASE) - 1)
    assert (expected != index).mean() > 0.1
    atol = 0.3 if interpolation == "cubic" else 1e-4  # splines ring
    np.testing.assert_allclose(np.moveaxis(image.numpy(), 0, -1), expected, atol=atol)


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
def test_a_view_that_changes_nothing_reads_the_voxels(interpolation):
    noise = smooth_noise(CASE, 0)
    start = np.array([5, 6, 7])
    view = View(np.eye(3) + 1e-9, start + (np.array(PATCH) - 1) / 2, CASE)
    image, _ = sampled(noise, view, interpolation)
    expected = noise[(slice(None), *map(slice, start, start + PATCH))]
    atol = {"linear": 1e-4, "shifted_linear": 2e-3, "cubic": 2e-3}[interpolation]
    np.testing.assert_allclose(image.numpy(), expected, atol=atol)


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@pytest.mark.parametrize("matrix", [TURNED, IN_PLANE], ids=["turned", "in_plane"])
def test_the_region_read_is_large_enough(matrix, interpolation):
    noise = smooth_noise((30, 41, 37), 1)
    view = View(matrix, np.array([15.0, 20.0, 18.5]), (30, 41, 37))
    small, _ = sampled(noise, view, interpolation)
    large, _ = sampled(noise, view, interpolation, halo=30)
    atol = 1e-5 if interpolation == "linear" else 2e-3
    torch.testing.assert_close(small, large, atol=atol, rtol=0)


def test_shifted_linear_interpolation_hardly_blurs():
    wave = np.cos(2 * np.pi * 0.2 * np.arange(40))  # 0.4 of the Nyquist frequency
    image = np.broadcast_to(wave, (1, 20, 22, 40)).astype(np.float32).copy()
    matrix = affine_matrix((0.2, 0.3, 0.25), 1.0, (1, 1, 1), in_plane=False)
    gain = {}
    for interpolation in INTERPOLATIONS:
        view = View(matrix, np.array([9.5, 10.5, 19.5]), (20, 22, 40))
        values, index = sampled(image, view, interpolation, shape=(8, 8, 12))
        truth = np.cos(2 * np.pi * 0.2 * index[..., 2])
        gain[interpolation] = float((values[0].numpy() * truth).sum() / (truth**2).sum())
    assert gain["linear"] < 0.92
    assert gain["shifted_linear"] == pytest.approx(1, abs=0.03)
    assert gain["cubic"] == pytest.approx(1, abs=0.03)


@pytest.mark.parametrize("matrix", [TURNED, IN_PLANE], ids=["turned", "in_plane"])
def test_a_half_space_keeps_its_side(matrix):
    normal, distance = np.array([0.3, 1.0, -0.6]), 9.0
    position = np.moveaxis(np.indices(CASE), 0, -1) @ normal - distance
    hr_seg = torch.from_numpy(np.where(position > 0, 2, -1)[None].astype(np.int16))
    view = View(matrix, CENTRE, CASE)
    first = -(np.array(PATCH) - 1) / 2
    frame = Frame(view, first, PATCH)
    start, stop = frame.source_box(halo=1)
    labels = frame.labels(hr_seg[(slice(None), *map(slice, start, stop))], start)[0]
    index = (np.moveaxis(np.indices(PATCH), 0, -1) + first) @ matrix.T + CENTRE
    away = index @ normal - distance
    certain = np.abs(away) > 0.7  # by half a voxel of the staircase
    assert set(torch.unique(labels).tolist()) == {-1, 2}
    np.testing.assert_array_equal(labels.numpy()[certain], np.where(away > 0, 2, -1)[certain])
    assert certain.mean() > 0.7


def test_labels_win_by_their_share_and_none_is_invented():
    generator = np.random.default_rng(3)
    blocks = generator.choice([-1, 1, 3, 4, 7, 8, 11], size=(6, 8, 7))
    hr_seg = blocks.repeat(3, 0).repeat(3, 1).repeat(3, 2)[None].astype(np.int16)
    view = View(TURNED, np.array([8.5, 11.5, 10.0]), hr_seg.shape[1:])
    frame = Frame(view, -(np.array(PATCH) - 1) / 2, PATCH)
    labels = frame.labels(torch.from_numpy(hr_seg), np.zeros(3))
    one_hot = {label: (hr_seg == label).astype(np.float32) for label in np.unique(hr_seg)}
    shares = torch.stack(
        [frame.image(torch.from_numpy(mask), np.zeros(3), "linear")[0] for mask in one_hot.values()]
    )
    best, second = shares.topk(2, dim=0).values
    clear = best - second > 1e-4
    expected = torch.tensor(list(one_hot))[shares.argmax(dim=0)].to(torch.int16)
    assert torch.equal(labels[0][clear], expected[clear])
    assert set(torch.unique(labels).tolist()) <= set(one_hot)


def test_one_label_needs_no_sampling():
    frame = Frame(View(TURNED, CENTRE, CASE), -(np.array(PATCH) - 1) / 2, PATCH)
    labels = frame.labels(torch.full((1, 4, 4, 4), 5, dtype=torch.int16), np.array([6, 9, 8]))
    assert torch.equal(labels, torch.full((1, *PATCH), 5, dtype=torch.int16))


@pytest.mark.parametrize("matrix", [TURNED, IN_PLANE], ids=["turned", "in_plane"])
def test_inside_ends_at_the_outer_faces(matrix):
    view = View(matrix, np.array([2.0, 20.0, 1.5]), CASE)
    shape = (15, 16, 14)
    first = -(np.array(shape) - 1) / 2
    inside = Frame(view, first, shape).inside()[0].numpy()
    index = (np.moveaxis(np.indices(shape), 0, -1) + first) @ matrix.T + view.centre
    expected = ((index >= -0.5) & (index <= np.array(CASE) - 0.5)).all(axis=-1)
    away = np.abs(np.stack([index + 0.5, index - np.array(CASE) + 0.5])).min(axis=(0, -1)) > 1e-4
    np.testing.assert_array_equal(inside[away], expected[away])
    assert 0 < inside.mean() < 1


def test_the_extent_is_where_the_case_is_seen():
    view = View(affine_matrix([0] * 3, 2.0, SPACING, in_plane=False), CENTRE, CASE)
    lowest, highest = view.extent()
    np.testing.assert_allclose(lowest, -CENTRE / 2)
    np.testing.assert_allclose(highest, (np.array(CASE) - 1 - CENTRE) / 2)
