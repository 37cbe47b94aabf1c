"""Each scheme is an affine map that equals nnU-Net's normalisation and can be undone."""

from __future__ import annotations

import numpy as np
import pytest
from nnunetv2.preprocessing.normalization import default_normalization_schemes as stock

from srseg.preprocessing.intensity import (
    IntensityMap,
    apply_maps,
    clip_bounds,
    intensity_maps,
    maps_of,
)
from tests.preprocessing.hand_plans import STATISTICS

SHAPE = (5, 8, 7)


def image_of(low=-30.0, high=120.0):
    return np.random.default_rng(0).uniform(low, high, (1, *SHAPE)).astype(np.float32)


def only_map(image, scheme, *, nonzero=None, use_mask=False):
    nonzero = np.ones(SHAPE, dtype=bool) if nonzero is None else nonzero
    (intensity,) = intensity_maps(
        image, nonzero, schemes=[scheme], use_mask=[use_mask], dataset_statistics={"0": STATISTICS}
    )
    return intensity


@pytest.mark.parametrize(
    "scheme",
    [
        "ZScoreNormalization",
        "CTNormalization",
        "NoNormalization",
        "RescaleTo01Normalization",
        "RGBTo01Normalization",
    ],
)
def test_equals_nnunet(scheme):
    image = image_of(0 if scheme.startswith("RGB") else -30)
    normaliser = getattr(stock, scheme)(use_mask_for_norm=False, intensityproperties=STATISTICS)
    expected = normaliser.run(image[0].copy(), np.zeros(SHAPE))
    actual = only_map(image, scheme).apply(image[0])
    (bounds,) = clip_bounds([scheme], {"0": STATISTICS})
    if bounds is not None:
        assert (actual < bounds[0]).any(), "the test image must reach beyond the bounds"
        actual = actual.clip(*bounds)
    assert actual.dtype == np.float32
    np.testing.assert_allclose(actual, expected, atol=2e-6)


def test_masked_zscore_takes_its_statistics_from_inside():
    image = image_of()
    nonzero = np.zeros(SHAPE, dtype=bool)
    nonzero[1:4, 2:7, :5] = True
    image[0, ~nonzero] = 0
    normaliser = stock.ZScoreNormalization(use_mask_for_norm=True, intensityproperties={})
    expected = normaliser.run(image[0].copy(), np.where(nonzero, 0, -1))
    intensity = only_map(image, "ZScoreNormalization", nonzero=nonzero, use_mask=True)
    actual = intensity.apply(image[0])
    np.testing.assert_allclose(actual[nonzero], expected[nonzero], atol=2e-6)
    # one affine map everywhere, unlike nnU-Net, which leaves 0 outside
    np.testing.assert_allclose(actual[~nonzero], intensity.intercept, atol=1e-6)


@pytest.mark.parametrize("scheme", ["ZScoreNormalization", "CTNormalization", "NoNormalization"])
def test_unclipped_map_is_inverted_exactly(scheme):
    image = image_of(-4000, 9000)
    intensity = only_map(image, scheme)
    np.testing.assert_allclose(intensity.invert(intensity.apply(image[0])), image[0], atol=2e-3)


def test_a_mean_far_from_zero_loses_no_digits():
    image = (60_000 + np.random.default_rng(1).standard_normal((1, *SHAPE))).astype(np.float32)
    exact = (image.astype(np.float64) - image.mean(dtype=np.float64)) / image.std(dtype=np.float64)
    actual = only_map(image, "ZScoreNormalization").apply(image[0])
    # all that remains is float32's rounding of the mean, the same for every voxel
    assert (actual - exact[0]).std() < 1e-6


@pytest.mark.parametrize("scheme", ["ZScoreNormalization", "RescaleTo01Normalization"])
def test_a_constant_image_becomes_zero_and_others_stay_finite(scheme):
    image = np.full((1, *SHAPE), 7.0, dtype=np.float32)
    intensity = only_map(image, scheme)
    assert (intensity.apply(image[0]) == 0).all()
    assert intensity.apply(image[0] + 3).max() == 3


def test_clip_bounds_are_in_the_normalised_frame_and_for_ct_alone():
    statistics = {"mean": 40.0, "std": 20.0, "percentile_00_5": -10.0, "percentile_99_5": 100.0}
    schemes = ["ZScoreNormalization", "CTNormalization"]
    assert clip_bounds(schemes, {"0": {}, "1": statistics}) == [None, (-2.5, 3.0)]


def test_integer_images_are_taken():
    raw = np.array([[0, 30_000, -30_000]], dtype=np.int16)
    assert IntensityMap(2.0, 1.0).apply(raw).tolist() == [[1.0, 60_001.0, -59_999.0]]


def test_stored_maps_come_back():
    stored = {"slope": [2.0, 3.0], "intercept": [1.0, 0.5]}
    assert maps_of({"srseg": stored}) == [IntensityMap(2.0, 1.0), IntensityMap(3.0, 0.5)]


def test_each_channel_has_its_own_map():
    image = np.stack([image_of()[0], image_of(500, 600)[0]])
    maps = intensity_maps(
        image, np.ones(SHAPE, dtype=bool),
        schemes=["ZScoreNormalization", "NoNormalization"],
        use_mask=[False, False], dataset_statistics={},
    )  # fmt: skip
    normalised = apply_maps(image, maps)
    assert abs(normalised[0].mean()) < 1e-5
    np.testing.assert_array_equal(normalised[1], image[1])


def test_unknown_scheme_lists_the_known():
    with pytest.raises(ValueError, match=r"unknown normalisation 'ZScor'.*ZScoreNormalization"):
        only_map(image_of(), "ZScor")


def test_values_that_are_no_rgb():
    with pytest.raises(ValueError, match=r"from 0 to 255, got .* to 3999"):
        only_map(np.full((1, *SHAPE), 3999.0), "RGBTo01Normalization")


def test_wrong_number_of_channels():
    with pytest.raises(ValueError, match="has 2 channels, the plans normalise 1"):
        intensity_maps(
            np.zeros((2, *SHAPE)), np.ones(SHAPE, dtype=bool),
            schemes=["NoNormalization"], use_mask=[False], dataset_statistics={},
        )  # fmt: skip
