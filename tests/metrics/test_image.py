"""Image metrics by hand, and against scikit-image where it decides."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import ndimage
from skimage.metrics import structural_similarity

from srseg.metrics.image import (
    body_mask,
    data_range_of,
    hfen,
    intensity_range,
    lr_consistency_psnr,
    mean_absolute_error,
    mean_squared_error,
    nmse,
    psnr,
    ssim3d,
    ssim_map,
)

SHAPE = (13, 16, 19)


def texture(shape=SHAPE, seed=0) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(size=shape)
    smooth = ndimage.gaussian_filter(noise, 1.0)
    return (500 + 100 * smooth / smooth.std()).astype(np.float32)


def test_psnr_of_an_offset():
    image = texture()
    assert psnr(image + 10, image, data_range=100) == pytest.approx(20, abs=1e-3)
    assert psnr(image - 10, image, data_range=1000) == pytest.approx(40, abs=1e-3)
    assert lr_consistency_psnr(image + 10, image, data_range=100) == pytest.approx(20, abs=1e-3)


def test_psnr_in_a_mask():
    image, mask = np.zeros((3, 4, 5)), np.zeros((3, 4, 5), dtype=bool)
    mask[1] = True
    off = np.where(mask, 1.0, 5.0)
    assert psnr(image + off, image, data_range=10, mask=mask) == pytest.approx(20)
    assert mean_squared_error(image + off, image) == pytest.approx((1 + 2 * 25) / 3)
    assert mean_absolute_error(image - off, image) == pytest.approx(11 / 3)
    assert mean_absolute_error(image - off, image, mask=mask) == 1


def test_equal_images_and_empty_masks():
    image = texture()
    assert psnr(image, image, data_range=1) == math.inf
    assert ssim3d(image, image, data_range=100) == pytest.approx(1)
    nowhere = np.zeros(SHAPE, dtype=bool)
    assert math.isnan(psnr(image + 1, image, data_range=1, mask=nowhere))
    assert math.isnan(ssim3d(image, image, data_range=1, mask=nowhere))
    assert math.isnan(mean_squared_error(image, image, mask=nowhere))
    assert math.isnan(mean_absolute_error(image, image, mask=nowhere))
    assert nmse(image, image) == hfen(image, image) == 0


@pytest.mark.parametrize("function", [psnr, ssim3d, lr_consistency_psnr, ssim_map])
def test_data_range_has_no_default(function):
    with pytest.raises(TypeError, match="data_range"):
        function(texture(), texture())
    for wrong in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="data_range must be a positive number"):
            function(texture(), texture(), data_range=wrong)


def test_data_range_is_between_percentiles():
    ramp = np.arange(1001.0).reshape(7, 11, 13)
    assert intensity_range(ramp) == pytest.approx((5, 995))
    assert data_range_of(ramp) == pytest.approx(990)
    ramp[0, 0, 0] = -1e6  # one odd voxel changes little
    assert data_range_of(ramp) == pytest.approx(990, abs=2)


def test_data_range_of_nearly_empty_and_constant_images():
    image = np.zeros((10, 20, 30))
    assert data_range_of(image) == 0
    image[5, 5, 5:9] = 7
    assert intensity_range(image) == (0, 7)


def test_body_mask_is_the_body_with_its_holes():
    y, x = np.ogrid[:31, :33]
    radius = np.sqrt((y - 15) ** 2 + (x - 16) ** 2)
    body = np.broadcast_to(radius < 11, (9, 31, 33))
    lung = np.broadcast_to(radius < 4, body.shape)
    noise = np.random.default_rng(0).normal(0, 4, body.shape)
    image = np.where(body & ~lung, 400.0, 0.0) + noise
    np.testing.assert_array_equal(body_mask(image), body)  # the lung is open at both ends in z
    np.testing.assert_array_equal(body_mask(image - 1000), body)  # as in CT
    assert body_mask(np.full((2, 3, 4), 5.0)).all()


def test_ssim_is_scikit_images_in_three_dimensions():
    hr_image, sr_image = texture(), texture() + texture(seed=1) / 10
    _, expected = structural_similarity(
        hr_image.astype(float),
        sr_image.astype(float),
        data_range=600.0,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        full=True,
    )
    inner = expected[5:-5, 5:-5, 5:-5]
    assert 0 < inner.mean() < 0.999
    actual = ssim3d(sr_image, hr_image, data_range=600.0)
    assert actual == pytest.approx(inner.mean(), abs=1e-6)
    similarity = ssim_map(sr_image, hr_image, data_range=600.0)
    assert np.isfinite(similarity).sum() == inner.size
    mask = np.zeros(SHAPE, dtype=bool)
    mask[6, 7:9, :] = True
    assert ssim3d(sr_image, hr_image, data_range=600.0, mask=mask) == pytest.approx(
        expected[6, 7:9, 5:-5].mean(), abs=1e-6
    )


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("thickness", [1, 4, 10])
def test_ssim_of_thin_volumes_is_two_dimensional(axis, thickness):
    hr_image = np.moveaxis(texture((thickness, 14, 17)), 0, axis)
    sr_image = np.moveaxis(texture((thickness, 14, 17), seed=1), 0, axis)
    pairs = zip(np.moveaxis(hr_image, axis, 0), np.moveaxis(sr_image, axis, 0), strict=True)
    expected = [
        structural_similarity(
            hr_slice.astype(float),
            sr_slice.astype(float),
            data_range=600.0,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        )
        for hr_slice, sr_slice in pairs
    ]
    actual = ssim3d(sr_image, hr_image, data_range=600.0)
    assert actual == pytest.approx(np.mean(expected), abs=1e-6)


def test_ssim_needs_two_axes_of_eleven_voxels():
    assert math.isnan(ssim3d(texture((20, 10, 10)), texture((20, 10, 10)), data_range=1.0))
    with pytest.raises(ValueError, match="SSIM needs volumes"):
        ssim_map(texture((20, 20)), texture((20, 20)), data_range=1.0)


def test_nmse_by_hand():
    hr_image = np.array([[[3.0, 4.0]]])
    assert nmse(np.array([[[4.0, 6.0]]]), hr_image) == pytest.approx(5 / 25)
    assert math.isnan(nmse(hr_image, np.zeros((1, 1, 2))))


def test_hfen_sees_edges_and_no_offsets():
    image = texture()
    assert hfen(image + 100, image) == pytest.approx(0, abs=1e-5)
    assert hfen(np.zeros_like(image), image) == pytest.approx(1)
    assert 0.05 < hfen(ndimage.gaussian_filter(image, 1), image) < 1
    flat = texture((1, 16, 19))
    assert hfen(0.5 * flat, flat) == pytest.approx(0.5)
    assert math.isnan(hfen(np.ones((4, 5, 6)), np.ones((4, 5, 6))))
    assert math.isnan(hfen(np.ones((1, 1, 1)), np.ones((1, 1, 1))))


@pytest.mark.parametrize("function", [psnr, ssim3d, ssim_map, lr_consistency_psnr])
def test_shapes_must_agree(function):
    """(1, 16, 19) against (13, 16, 19) would broadcast."""
    with pytest.raises(ValueError, match=r"differ in shape: \(1, 16, 19\) and \(13, 16, 19\)"):
        function(texture((1, 16, 19)), texture(), data_range=1.0)


@pytest.mark.parametrize("function", [nmse, hfen, mean_squared_error, mean_absolute_error])
def test_shapes_of_norms_must_agree(function):
    with pytest.raises(ValueError, match="differ in shape"):
        function(texture((1, 16, 19)), texture())


@pytest.mark.parametrize("function", [psnr, ssim3d])
def test_masks_must_fit(function):
    with pytest.raises(ValueError, match=r"mask of shape \(1, 16, 19\) for images of"):
        function(texture(), texture(), data_range=1.0, mask=np.ones((1, 16, 19), bool))
