"""Each rule of the scale alone, then together."""

from __future__ import annotations

import numpy as np
import pytest

from srseg.planning.scale_rule import (
    choose_scale,
    in_mm,
    keep_one_refined,
    lower_for_thin_structures,
    raise_until_it_fits,
    scale_of_lr_spacing,
    scale_of_pairs,
    start_scale,
)

SHAPE = (30, 200, 180)


def always(_: object) -> bool:
    return True


@pytest.mark.parametrize(
    ("hr_spacing", "shape", "scale"),
    [
        ((1.0, 1.0, 1.0), SHAPE, (2, 2, 2)),
        ((8.0, 1.4, 1.5), SHAPE, (1, 2, 2)),
        ((1.0, 0.5, 0.5), SHAPE, (2, 2, 2)),  # exactly twice
        ((1.0000001, 0.5, 0.5), SHAPE, (2, 2, 2)),  # twice, as NIfTI's float32 says it
        ((1.01, 0.5, 0.5), SHAPE, (1, 2, 2)),
        ((0.5, 0.6, 3.0), SHAPE, (2, 2, 1)),
        ((999.0, 1.0, 1.0), (1, 200, 180), (1, 2, 2)),
        ((1.0, 0.7, 0.7), (1, 200, 180), (1, 2, 2)),  # a single slice cannot be refined
    ],
)
def test_start(hr_spacing, shape, scale):
    assert start_scale(hr_spacing, shape) == scale


def test_nothing_is_raised_where_it_fits_already():
    assert raise_until_it_fits((2, 2, 2), (1.0, 0.7, 0.5), always) == (2, 2, 2)


def test_finest_lr_axis_is_raised_first_and_no_further_than_needed():
    seen = []

    def fits(scale):
        seen.append(scale)
        return np.prod(scale) >= 18

    assert raise_until_it_fits((2, 2, 2), (1.0, 0.7, 0.5), fits) == (2, 3, 3)
    assert (2, 2, 3) in seen


def test_axes_that_are_not_refined_stay():
    assert raise_until_it_fits((1, 2, 2), (5.0, 0.8, 0.7), lambda s: np.prod(s) >= 16) == (1, 4, 4)


def test_nothing_is_raised_where_even_the_largest_scale_does_not_fit():
    assert raise_until_it_fits((2, 2, 2), (1.0, 0.7, 0.5), lambda _: False) == (2, 2, 2)


def test_thin_structure_lowers_its_axis():
    thickness = {"liver": [60.0, 50.0, 55.0], "vessel": [9.0, 3.9, 2.9]}
    scale, culprit = lower_for_thin_structures((4, 4, 4), (1.0, 0.5, 0.5), thickness)
    assert scale == (4, 3, 2)
    assert culprit == "vessel"


def test_two_lr_voxels_are_enough():
    scale, culprit = lower_for_thin_structures((2, 2, 2), (1, 1, 1), {"a": [4.0, 4.0, 4.0]})
    assert (scale, culprit) == ((2, 2, 2), None)


def test_unknown_thickness_lowers_nothing():
    assert lower_for_thin_structures((2, 2, 2), (1, 1, 1), {"a": [None] * 3})[0] == (2, 2, 2)


def test_rule_never_ends_in_all_ones():
    thin = {"membrane": [1.5, 1.0, 2.5]}
    assert keep_one_refined((1, 1, 1), (2, 2, 2), (1, 1, 1), thin) == (1, 1, 2)
    assert keep_one_refined((1, 2, 1), (2, 2, 2), (1, 1, 1), thin) == (1, 2, 1)
    choice = choose_scale((1, 1, 1), SHAPE, thin, always)
    assert choice.scale == (1, 1, 2)
    assert "'membrane'" in choice.reason
    assert "-scale 1 1 1" in choice.reason


def test_reason_names_every_step():
    choice = choose_scale(
        (1.0, 0.8, 0.8), SHAPE, {"duct": [50.0, 3.2, 9.0]}, lambda s: np.prod(s) >= 27
    )
    assert choice.scale == (3, 2, 3)
    for words in ("at most 2 times the finest", "raised from 2 x 2 x 2 to 3 x 3 x 3", "'duct'"):
        assert words in choice.reason


def test_pairs_decide_by_their_median_ratio():
    hr = [(1.0, 0.8, 0.8), (1.0, 0.9, 0.9), (1.2, 0.8, 0.8)]
    lr = [(5.0, 0.8, 0.8), (5.0, 0.9, 0.9), (2.0, 0.8, 0.8)]
    choice = scale_of_pairs(hr, lr)
    assert choice.scale == (5, 1, 1)
    assert "5 x 1 x 1" in choice.reason


def test_pairs_of_equal_spacing_are_valid():
    assert scale_of_pairs([(1.0, 0.8, 0.7)], [(1.0, 0.8, 0.7)]).scale == (1, 1, 1)


def test_lr_spacing_decides_scale_and_hr_grid():
    choice, hr_spacing = scale_of_lr_spacing((6.0, 2.0, 0.5), (1.1, 0.9, 0.7))
    assert choice.scale == (5, 2, 1)
    assert hr_spacing == pytest.approx((1.2, 1.0, 0.5))
    assert np.multiply(hr_spacing, choice.scale) == pytest.approx((6.0, 2.0, 0.5))


def test_spacing_that_a_2d_image_does_not_have_is_not_shown():
    assert in_mm((999.0, 1.0, 0.5)) == "1 x 0.5 mm"
