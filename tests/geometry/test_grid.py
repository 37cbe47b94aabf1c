"""A refined or coarsened grid keeps the field of view: world coordinates stay."""

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from torch.nn.functional import interpolate

from srseg.geometry.grid import Grid, pad_to_multiple

OBLIQUE = (0.8, -0.6, 0.0, 0.6, 0.8, 0.0, 0.0, 0.0, 1.0)
TILTED = (0.8, -0.48, 0.36, 0.6, 0.64, -0.48, 0.0, 0.6, 0.8)
LR_GRID = Grid((5, 8, 7), (4.0, 0.7, 0.5), (10.0, -20.0, 30.0), TILTED)
SCALES = [(1, 1, 1), (2, 1, 1), (1, 2, 2), (3, 2, 1), (4, 1, 1)]


def test_world_coordinates_agree_with_world_xyz():
    ramp = LR_GRID.world_coordinates()
    for index in [(0, 0, 0), (4, 7, 6), (2, 3, 5)]:
        assert ramp[(slice(None), *index)] == pytest.approx(LR_GRID.world_xyz(index))


def test_world_point_agrees_with_simpleitk():
    image = sitk.Image(LR_GRID.shape[::-1], sitk.sitkUInt8)
    image.SetSpacing(LR_GRID.spacing[::-1])
    image.SetOrigin(LR_GRID.origin_xyz)
    image.SetDirection(LR_GRID.direction_xyz)
    assert LR_GRID.world_xyz((4, 2, 6)) == pytest.approx(
        image.TransformIndexToPhysicalPoint((6, 2, 4))
    )


def test_index_of_inverts_world_xyz():
    assert LR_GRID.index_of(LR_GRID.world_xyz((1.5, -2.25, 6.0))) == pytest.approx(
        (1.5, -2.25, 6.0)
    )


@pytest.mark.parametrize("scale", SCALES)
def test_interpolated_world_ramp_matches_refined_grid(scale):
    hr_grid = LR_GRID.refined(scale)
    ramp = torch.from_numpy(LR_GRID.world_coordinates())[None]
    actual = interpolate(ramp, size=hr_grid.shape, mode="trilinear")[0]
    inner = (slice(None), *(slice(s, -s) for s in scale))  # interpolate clamps at the border
    torch.testing.assert_close(actual[inner], torch.from_numpy(hr_grid.world_coordinates())[inner])


@pytest.mark.parametrize("scale", SCALES)
def test_coarsened_inverts_refined(scale):
    back = LR_GRID.refined(scale).coarsened(scale)
    assert back.shape == LR_GRID.shape
    assert back.spacing == pytest.approx(LR_GRID.spacing)
    assert back.origin_xyz == pytest.approx(LR_GRID.origin_xyz)


@pytest.mark.parametrize("scale", [(0, 1, 1), (1.5, 1, 1)])
def test_scale_must_be_whole(scale):
    with pytest.raises(ValueError, match="whole numbers"):
        LR_GRID.refined(scale)


def test_coarsening_an_undivided_shape_raises():
    with pytest.raises(ValueError, match="does not divide"):
        LR_GRID.coarsened((2, 2, 2))


def test_pad_to_multiple_repeats_the_high_edge_only():
    array = np.arange(1 * 3 * 4 * 5).reshape(1, 3, 4, 5)
    padded = pad_to_multiple(array, (2, 3, 1))
    assert padded.shape == (1, 4, 6, 5)
    np.testing.assert_array_equal(padded[:, :3, :4, :5], array)
    np.testing.assert_array_equal(padded[:, 3, 5], array[:, 2, 3])


def test_pad_to_multiple_returns_a_fitting_array_itself():
    array = np.zeros((1, 4, 6, 5))
    assert pad_to_multiple(array, (2, 3, 5)) is array
