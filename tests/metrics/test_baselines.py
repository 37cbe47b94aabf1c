"""Interpolations keep voxel faces: ramps of world coordinates stay on the refined grid."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk

from srseg.geometry.grid import Grid
from srseg.metrics.baselines import BASELINES, upsample_cubic, upsample_sinc

SCALES = ((1, 1, 1), (2, 1, 1), (1, 2, 2), (3, 2, 1))
OBLIQUE = (0.8, -0.6, 0.0, 0.6, 0.8, 0.0, 0.0, 0.0, 1.0)
LR_GRID = Grid((17, 20, 23), (4.0, 0.7, 0.5), (10.0, -20.0, 30.0), OBLIQUE)


@pytest.mark.parametrize("scale", SCALES)
def test_cubic_keeps_the_world_ramp(scale):
    actual = upsample_cubic(LR_GRID.world_coordinates(), scale)
    expected = LR_GRID.refined(scale).world_coordinates()
    assert actual.shape == expected.shape
    inner = (slice(None), *(slice(6 * s, -6 * s) for s in scale))  # reflection bends the ends
    np.testing.assert_allclose(actual[inner], expected[inner], atol=2e-3)


@pytest.mark.parametrize("scale", SCALES)
def test_cubic_agrees_with_itk_s_b_spline(scale):
    lr_image = np.random.default_rng(0).normal(size=LR_GRID.shape).astype(np.float32)
    image = sitk.GetImageFromArray(lr_image)
    hr_grid = Grid(LR_GRID.shape, (1.0, 1.0, 1.0)).refined(scale)
    expected = sitk.Resample(
        image,
        [int(n) for n in hr_grid.shape[::-1]],
        sitk.Transform(),
        sitk.sitkBSpline,
        hr_grid.origin_xyz,
        hr_grid.spacing[::-1],
    )
    inner = tuple(slice(6 * s, -6 * s) for s in scale)
    np.testing.assert_allclose(
        upsample_cubic(lr_image, scale)[inner], sitk.GetArrayFromImage(expected)[inner], atol=1e-3
    )


def test_cubic_reflects_the_image_at_its_faces():
    """As the degradation does: the border looks as it does in the image with its mirror image."""
    lr_image = np.random.default_rng(0).normal(size=(5, 8, 7)).astype(np.float32)
    mirrored = np.pad(lr_image, ((15, 15), (0, 0), (24, 24)), mode="symmetric")
    inner = upsample_cubic(mirrored, (3, 1, 2))[45:-45, :, 48:-48]
    np.testing.assert_allclose(upsample_cubic(lr_image, (3, 1, 2)), inner, atol=1e-5)


@pytest.mark.parametrize("frequency", [0, 1, 3, 6])
@pytest.mark.parametrize("factor", [2, 3])
def test_sinc_continues_its_own_frequencies(frequency, factor):
    """A cosine that is even about the faces is the same cosine on the finer grid."""
    coarse, fine = (np.pi * frequency * (np.arange(n) + 0.5) / n for n in (7, 7 * factor))
    lr_image = np.broadcast_to(np.cos(coarse), (2, 3, 7))
    actual = upsample_sinc(lr_image, (1, 1, factor))
    expected = np.broadcast_to(np.cos(fine), actual.shape)
    np.testing.assert_allclose(actual, expected, atol=1e-6)


@pytest.mark.parametrize("name", BASELINES)
@pytest.mark.parametrize("scale", SCALES)
def test_laws(name, scale):
    upsample = BASELINES[name]
    image = np.random.default_rng(0).normal(size=(2, 5, 8, 7)).astype(np.float32)
    result = upsample(image, scale)
    assert result.dtype == np.float32
    assert result.shape == (2, *(n * s for n, s in zip((5, 8, 7), scale, strict=True)))
    np.testing.assert_allclose(upsample(np.full((5, 8, 7), 3.0), scale), 3, atol=1e-5)
    for axis in (1, 2, 3):  # flips commute
        flipped = upsample(np.flip(image, axis), scale)
        np.testing.assert_allclose(flipped, np.flip(result, axis), atol=1e-5)
    if scale == (1, 1, 1):
        np.testing.assert_array_equal(result, image)


def test_one_voxel_becomes_a_block():
    for upsample in BASELINES.values():
        np.testing.assert_allclose(upsample(np.full((1, 1, 1), 4.0), (3, 2, 1)), 4, atol=1e-6)


@pytest.mark.parametrize("name", BASELINES)
def test_scale_must_be_whole(name):
    with pytest.raises(ValueError, match="whole numbers"):
        BASELINES[name](np.zeros((3, 4, 5)), (1, 1.5, 2))
