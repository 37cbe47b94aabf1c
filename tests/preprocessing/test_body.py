"""The frame of the body: laws of units, and what does not count."""

import numpy as np
import pytest

from srseg.preprocessing.body import body_map, body_mask, median_map
from srseg.preprocessing.intensity import IntensityMap


def head(seed=0, shape=(6, 11, 9)):
    generator = np.random.default_rng(seed)
    image = generator.gamma(3.0, 40.0, shape)
    image[:, :3] = generator.uniform(0, 3, image[:, :3].shape)  # air
    return image


@pytest.mark.parametrize(("slope", "offset"), [(0.01, 0.0), (7.0, -1024.0)])
def test_other_units_give_the_same_frame(slope, offset):
    image = head()
    np.testing.assert_array_equal(body_mask(image), body_mask(slope * image + offset))
    frame = body_map(image).apply(image)
    other = slope * image + offset
    np.testing.assert_allclose(frame, body_map(other).apply(other), atol=1e-4)


def test_the_body_fills_the_range_and_air_does_not_count():
    image = head()
    inside = body_map(image).apply(image)[body_mask(image)]
    np.testing.assert_allclose(np.percentile(inside, (1, 99)), (-1, 1), atol=1e-5)
    assert not body_mask(image)[:, :3].any()
    more_air = np.concatenate([image, np.zeros_like(image)])
    np.testing.assert_allclose(body_map(more_air).slope, body_map(image).slope, rtol=0.05)


def test_a_constant_volume_becomes_zero():
    image = np.full((2, 3, 4), 5.0)
    assert body_mask(image).all()
    np.testing.assert_array_equal(body_map(image).apply(image), 0)


def test_the_median_map_has_the_median_ends():
    maps = [IntensityMap(2 / w, -1 - 2 * low / w) for low, w in ((0, 10), (4, 20), (100, 30))]
    middle = median_map(maps)
    np.testing.assert_allclose(middle.invert(np.float32([-1, 1])), (4, 24), rtol=1e-6)


@pytest.mark.parametrize("num_voxels", [1, 2, 30])
def test_a_body_of_few_voxels_fills_the_range_too(num_voxels):
    """The percentiles of a volume that is nearly all air say nothing of the body."""
    image = np.zeros((20, 21, 22))
    inside = np.linspace(500, 900, num_voxels)
    image[10, 11, 3 : 3 + min(15, num_voxels)] = inside[:15]
    image[10, 12, 3 : 3 + max(0, num_voxels - 15)] = inside[15:]
    assert body_mask(image).sum() == num_voxels
    frame = body_map(image).apply(image)
    assert np.abs(frame[body_mask(image)]).max() < 1.2
    assert np.abs(frame).max() < 10
