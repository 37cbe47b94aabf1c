"""Real pairs meet in world coordinates: the HR side moves, the LR side stays."""

from __future__ import annotations

import numpy as np
import pytest

from srseg.images.properties import grid_of, refine_properties
from srseg.preprocessing.paired import on_refined_grid
from tests.preprocessing.hand_plans import OBLIQUE, itk_properties

LR_SHAPE, LR_SPACING, SCALE = (7, 9, 8), (4.0, 1.5, 1.2), (3, 2, 1)
LR_PROPERTIES = itk_properties(LR_SPACING)
LR_IMAGE = np.ones((1, *LR_SHAPE), dtype=np.float32)
WANTED_SHAPE = (21, 18, 8)
WANTED = grid_of(refine_properties(LR_PROPERTIES, SCALE), WANTED_SHAPE)


def hr_ramp(spacing, shape, *, start=(0.0, 0.0, 0.0), direction_xyz=OBLIQUE):
    """Return image (world x), labels and properties of a grid whose first voxel lies at `start`.

    `start` is an index of the wanted grid.
    """
    properties = itk_properties(spacing, WANTED.world_xyz(start), direction_xyz)
    world = grid_of(properties, shape).world_coordinates()
    labels = (world[0] > 14).astype(np.uint8)
    return world[:1].astype(np.float32), labels[None], properties


def pair_of(hr, lr=(LR_IMAGE, LR_PROPERTIES), scale=SCALE):
    return on_refined_grid(hr, lr, scale, case="case_7")


def test_world_ramp_of_another_oblique_grid():
    straight = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
    hr = hr_ramp((0.9, 0.8, 0.7), (60, 60, 60), start=(-14, -20, -8), direction_xyz=straight)
    pair = pair_of(hr)
    assert pair.hr_image.shape == pair.hr_seg.shape == (1, *WANTED_SHAPE)
    assert pair.properties == refine_properties(LR_PROPERTIES, SCALE)
    valid = np.ones(WANTED_SHAPE, dtype=bool) if pair.valid is None else pair.valid
    world = WANTED.world_coordinates()
    np.testing.assert_allclose(pair.hr_image[0][valid], world[0][valid], atol=0.15)
    clear = valid & (np.abs(world[0] - 14) > 0.8)
    np.testing.assert_array_equal(pair.hr_seg[0][clear], (world[0] > 14)[clear])


def test_outside_the_hr_scan_is_not_valid():
    hr = hr_ramp(WANTED.spacing, (15, 18, 8), start=(4.0, 0.0, 0.0))
    pair = pair_of(hr)
    expected = np.zeros(WANTED_SHAPE, dtype=bool)
    expected[4:19] = True
    np.testing.assert_array_equal(pair.valid, expected)


def test_a_pair_on_matching_grids_is_left_as_it_is():
    hr = hr_ramp(WANTED.spacing, WANTED_SHAPE)
    pair = pair_of(hr)
    assert pair.hr_image is hr[0]
    assert pair.hr_seg is hr[1]
    assert pair.valid is None


def test_all_ones_is_a_valid_scale():
    hr = hr_ramp((2.0, 1.5, 1.2), (14, 9, 8), start=(0.0, 0.0, 0.0))
    pair = pair_of(hr, scale=(1, 1, 1))
    assert pair.hr_image.shape == (1, *LR_SHAPE)


def test_too_little_overlap_names_case_and_fraction():
    hr = hr_ramp(WANTED.spacing, (8, 18, 8))
    with pytest.raises(ValueError, match="case case_7: the HR image covers 38% .* 50% is needed"):
        pair_of(hr)


def test_formats_without_geometry_must_fit_exactly():
    plain = {"spacing": (999, 1, 1)}
    lr = (np.zeros((3, 1, 5, 7)), plain)
    fitting = (np.zeros((3, 1, 10, 14)), np.zeros((1, 1, 10, 14)), plain)
    assert pair_of(fitting, lr, (1, 2, 2)).hr_image is fitting[0]
    other = (np.zeros((3, 1, 10, 15)), np.zeros((1, 1, 10, 15)), plain)
    with pytest.raises(ValueError, match=r"case case_7: .*\(1, 10, 14\), got \(1, 10, 15\)"):
        pair_of(other, lr, (1, 2, 2))
