"""The LR half of preprocessing, shared by training and inference."""

from __future__ import annotations

import numpy as np
import pytest
from nnunetv2.preprocessing.resampling.default_resampling import compute_new_shape

from srseg.preprocessing.lr_case import prepare_lr, resampled_shape, stored_frame
from tests.preprocessing.hand_plans import hand_plans, managers

SPACING = (4.0, 1.5, 1.0)


def lr_volume(shape=(7, 12, 10), border=2):
    image = np.zeros((2, *shape), dtype=np.float32)
    inner = (slice(None), *(slice(border, -border),) * 3)
    image[inner] = np.random.default_rng(0).uniform(100, 200, image[inner].shape)
    return image


def prepare(image, spacing=SPACING, **options):
    options.setdefault("normalization", ["ZScoreNormalization"] * 2)
    scale = options.pop("scale", (1, 2, 2))
    hr_spacing = [mm / s for mm, s in zip(SPACING[-len(scale) :], scale, strict=True)]
    return prepare_lr(image, spacing, *managers(hand_plans(hr_spacing, scale, **options)))


def test_crop_and_normalise_on_the_planned_spacing():
    image = lr_volume()
    case = prepare(image)
    assert case.box == [[2, 5], [2, 10], [2, 8]]
    assert case.shape == case.cropped_shape == (3, 8, 6)
    assert case.native_shape == (7, 12, 10)
    inside = image[:, 2:5, 2:10, 2:8]
    expected = (inside - inside.mean((1, 2, 3), keepdims=True)) / inside.std(
        (1, 2, 3), keepdims=True
    )
    np.testing.assert_allclose(case.image, expected, atol=1e-5)


def test_another_spacing_is_resampled_over_the_same_field_of_view():
    case = prepare(lr_volume(border=1), (2.0, 1.5, 1.25))
    # 5 x 10 x 8 voxels are 10 x 15 x 10 mm
    assert case.shape == (2, 10, 10)
    assert case.spacing == SPACING


@pytest.mark.parametrize(
    ("native_mm", "slices", "spacing_mm"),
    [(2.0, 5, 2.0), (10.0, 5, 10.0), (10.2, 10, 5.0), (2.4, 2, 5.0)],
)
def test_native_axes_keep_their_slices_near_the_planned_spacing(native_mm, slices, spacing_mm):
    plans = hand_plans(SPACING, (1, 1, 1), normalization=["ZScoreNormalization"] * 2)
    configuration = plans["configurations"]["3d_fullres"]
    configuration |= {"native_axes": [0], "spacing": [5.0, 1.5, 1.0]}
    if native_mm == 2.0:
        configuration["spacing"][0] = 4.0
    case = prepare_lr(lr_volume(border=1), (native_mm, 1.5, 1.0), *managers(plans))
    assert case.shape == (slices, 10, 8)
    assert case.spacing == (spacing_mm, 1.5, 1.0)


def test_a_much_finer_input_keeps_a_voxel():
    assert prepare(lr_volume(), (0.1, 0.1, 0.1)).shape == (1, 1, 1)


def test_2d_keeps_the_native_slices():
    case = prepare(lr_volume(border=1), (9.0, 3.0, 1.0), scale=(2, 2))
    assert case.spacing == (9.0, 1.5, 1.0)
    assert case.shape == (5, 20, 8)


def test_statistics_from_inside_the_mask():
    image = lr_volume()
    image[:, 3, 4:8, 4:6] = np.nan_to_num(0)
    image[:, 2, 2] = 0  # a rim, so that the holes are not filled
    case = prepare(image, use_mask=[True, False])
    nonzero = case.nonzero[0] == 0
    assert not nonzero.all()
    first, second = case.image
    assert abs(first[nonzero].mean()) < 1e-5 < abs(first.mean())
    assert abs(second.mean()) < 1e-5


def test_stored_frame_holds_plain_values():
    case = prepare(lr_volume(), normalization=["CTNormalization", "ZScoreNormalization"])
    frame = stored_frame(case, (1, 2, 2), ("int16", "float32"))
    assert frame["lr_shape"] == (3, 8, 6)
    assert frame["hr_shape"] == (3, 16, 12)
    assert frame["scale"] == (1, 2, 2)
    assert frame["background"] == frame["intercept"]
    assert frame["dtype"] == ["int16", "float32"]
    numbers = [*frame["slope"], *frame["intercept"], *frame["lr_shape"]]
    assert {type(number) for number in numbers} <= {int, float}


def test_wrong_number_of_channels():
    with pytest.raises(ValueError, match="has 2 channels, the plans normalise 1"):
        prepare(lr_volume(), normalization=["NoNormalization"])


def test_the_input_is_left_as_it_was():
    image = lr_volume()
    before = image.copy()
    prepare(image)
    np.testing.assert_array_equal(image, before)


def test_resampled_shapes_are_those_of_nnunet():
    generator = np.random.default_rng(0)
    for _ in range(200):
        shape = generator.integers(1, 400, 3)
        old, new = generator.choice([0.5, 0.8, 1.0, 1.5, 2.0, 3.0, 5.0], (2, 3))
        expected = np.maximum(compute_new_shape(shape, old, new), 1)
        assert resampled_shape(shape, old, new) == tuple(expected)
    assert resampled_shape((2, 3, 1), (1.0, 1.0, 1.0), (9.0, 2.0, 2.5)) == (1, 2, 1)
