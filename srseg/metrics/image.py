"""How near a super-resolved image comes to the high-resolution one.

PSNR and SSIM mean nothing without the range of intensities they are related to, so `data_range` has
no default here. Ours is, for MR and CT alike, the distance between the 0.5th and the 99.5th
percentile of the HR *reference* (`data_range_of`): it follows the scan and not its few brightest
voxels. Numbers are given in the body and on the whole image, as air around the body is easy.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import ndimage
from skimage.metrics import structural_similarity

RANGE_PERCENTILES = (0.5, 99.5)
BODY_FRACTION = 0.1  # above the range's lower end; noise in MR air reaches some hundredths
_SSIM_SIGMA = 1.5  # voxels: the window of Wang et al., 11 voxels wide where it is cut off
_SSIM_WINDOW = 11
_EDGE_SIGMA = 1.5  # voxels, of the Laplacian of Gaussian
_EDGE_RADIUS = 6  # voxels: four sigma, where the kernel is cut off


def intensity_range(hr_image: np.ndarray) -> tuple[float, float]:
    """Return the 0.5th and 99.5th percentile of the reference's intensities.

    An image that is almost everywhere constant, such as a small structure in empty space, has
    percentiles that coincide; its minimum and maximum are returned then.
    """
    low, high = (float(v) for v in np.percentile(hr_image, RANGE_PERCENTILES))
    if high > low:
        return low, high
    return float(hr_image.min()), float(hr_image.max())


def data_range_of(hr_image: np.ndarray) -> float:
    """Return the data range of a reference: the width of `intensity_range`; 0 for a constant."""
    low, high = intensity_range(hr_image)
    return high - low


def body_mask(hr_image: np.ndarray, valid: np.ndarray | None = None) -> np.ndarray:
    """Return (Z, Y, X) bool: where the reference shows the body and not the air around it.

    Voxels brighter than a tenth of the way from the lower to the upper end of `intensity_range`,
    with enclosed holes filled slice by slice (lungs in CT, ventricles in skull-stripped MR) along
    the first axis. A constant image is all body.

    Args:
        hr_image: the reference (Z, Y, X).
        valid: same shape, bool: where the reference is known, None is everywhere. The rest is
            looked at for neither range nor holes and is never body.
    """
    everywhere = np.ones(hr_image.shape, dtype=bool)
    if valid is not None and not valid.any():
        return ~everywhere
    known = everywhere if valid is None else valid
    low, high = intensity_range(hr_image if valid is None else hr_image[valid])
    mask = (hr_image > low + BODY_FRACTION * (high - low)) & known
    if not mask.any():
        return known.copy()
    return np.stack([ndimage.binary_fill_holes(piece) for piece in mask]) & known


def psnr(
    sr_image: np.ndarray,
    hr_image: np.ndarray,
    *,
    data_range: float,
    mask: np.ndarray | None = None,
) -> float:
    """Return the peak signal-to-noise ratio in dB: 10 log10(data_range^2 / mean squared error).

    Args:
        sr_image: any shape.
        hr_image: the reference, same shape.
        data_range: the peak; see `data_range_of`.
        mask: bool, where to look; None is everywhere.

    Returns:
        Infinity for equal images, NaN for an empty mask.

    Raises:
        ValueError: if shapes differ or the range is not positive.
    """
    _check_shapes(sr_image, hr_image, mask)
    _check_range(data_range)
    error = mean_squared_error(sr_image, hr_image, mask=mask)
    return float("inf") if error == 0 else float(10 * np.log10(data_range**2 / error))


def lr_consistency_psnr(
    redegraded: np.ndarray, lr_image: np.ndarray, *, data_range: float
) -> float:
    """Return the PSNR in dB of the degraded SR image against the LR input: does it keep the data?

    Raises:
        ValueError: if shapes differ or the range is not positive.
    """
    return psnr(redegraded, lr_image, data_range=data_range)


def mean_squared_error(
    sr_image: np.ndarray, hr_image: np.ndarray, *, mask: np.ndarray | None = None
) -> float:
    """Return the mean squared difference in squared input units; NaN for an empty mask."""
    difference = _difference(sr_image, hr_image, mask)
    return float(np.mean(difference**2)) if difference.size else float("nan")


def mean_absolute_error(
    sr_image: np.ndarray, hr_image: np.ndarray, *, mask: np.ndarray | None = None
) -> float:
    """Return the mean absolute difference in input units; NaN for an empty mask."""
    difference = _difference(sr_image, hr_image, mask)
    return float(np.mean(np.abs(difference))) if difference.size else float("nan")


def nmse(sr_image: np.ndarray, hr_image: np.ndarray, *, mask: np.ndarray | None = None) -> float:
    """Return the squared error over the reference's energy, in a mask or everywhere.

    NaN for a reference of zeros and for an empty mask.
    """
    difference = _difference(sr_image, hr_image, mask)
    energy = float(np.sum(np.square(_inside(hr_image, mask), dtype=np.float64)))
    return float(np.sum(difference**2)) / energy if energy else float("nan")


def hfen(sr_image: np.ndarray, hr_image: np.ndarray, *, mask: np.ndarray | None = None) -> float:
    """Return the high-frequency error norm: that of the differences' Laplacian of Gaussian.

    Relative to the reference's own, with sigma 1.5 voxels (Ravishankar and Bresler, IEEE TMI
    2011); along axes with one voxel nothing is filtered. With a mask only voxels count whose kernel
    lies in it as a whole. NaN for a reference without edges and where no kernel fits.
    """
    _check_shapes(sr_image, hr_image, mask)
    counted = None if mask is None else np.squeeze(mask)
    edges, error = (
        _edges(np.squeeze(image), counted)
        for image in (hr_image, np.subtract(sr_image, hr_image, dtype=np.float64))
    )
    norm = float(np.linalg.norm(edges))
    return float(np.linalg.norm(error)) / norm if norm else float("nan")


def _edges(image: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
    known = _inside(image, mask)
    if not known.size:
        return known
    # A Laplacian kernel that is cut off does not quite sum to 0, so the mean goes first.
    image = image.astype(np.float64) - known.mean(dtype=np.float64)
    if image.ndim:
        image = ndimage.gaussian_laplace(image, _EDGE_SIGMA, truncate=_EDGE_RADIUS / _EDGE_SIGMA)
    if mask is None:
        return image
    return image[_fitting(mask, [2 * _EDGE_RADIUS + 1] * mask.ndim)]


def _fitting(mask: np.ndarray, width: Sequence[int]) -> np.ndarray:
    """Return the voxels round which a box of so many voxels lies in a mask as a whole.

    Beyond the volume everything counts as in the mask.
    """
    fits = mask.astype(np.uint8)
    for axis, size in enumerate(width):
        fits = ndimage.minimum_filter1d(fits, size, axis=axis, mode="constant", cval=1)
    return fits.astype(bool)


def ssim3d(
    sr_image: np.ndarray,
    hr_image: np.ndarray,
    *,
    data_range: float,
    mask: np.ndarray | None = None,
) -> float:
    """Return the mean of `ssim_map` over the volume or a mask; NaN where no window fits.

    Args:
        sr_image: (Z, Y, X).
        hr_image: the reference, same shape.
        data_range: the peak; see `data_range_of`.
        mask: (Z, Y, X) bool, which windows' centres count; None is all.

    Raises:
        ValueError: if shapes differ, are not 3-D, or the range is not positive.
    """
    _check_shapes(sr_image, hr_image, mask)
    return mean_inside(ssim_map(sr_image, hr_image, data_range=data_range), mask)


def ssim_map(
    sr_image: np.ndarray,
    hr_image: np.ndarray,
    *,
    data_range: float,
    valid: np.ndarray | None = None,
) -> np.ndarray:
    """Return (Z, Y, X) float32: the structural similarity (Wang et al., IEEE TIP 2004) per voxel.

    Gaussian windows of sigma 1.5, 11 voxels wide, in 3-D. Where one axis has fewer than 11 voxels
    (thick slices, 2-D images) windows are 2-D, slice by slice along that axis; where two do, all
    is NaN, as are the voxels whose window reaches beyond the volume, or beyond `valid`. SSIM was
    made for intensities above 0, so take the lower end of the range off both images first.

    Args:
        sr_image: (Z, Y, X).
        hr_image: the reference, same shape.
        data_range: the peak; see `data_range_of`.
        valid: (Z, Y, X) bool, where the reference is known; None is everywhere.

    Raises:
        ValueError: if shapes differ, are not 3-D, or the range is not positive.
    """
    _check_shapes(sr_image, hr_image, valid)
    _check_range(data_range)
    if hr_image.ndim != 3:
        raise ValueError(f"SSIM needs volumes (Z, Y, X), got shape {hr_image.shape}.")
    result = np.full(hr_image.shape, np.nan, dtype=np.float32)
    thin = [axis for axis, n in enumerate(hr_image.shape) if n < _SSIM_WINDOW]
    if len(thin) > 1:
        return result
    if not thin:
        _fill_similarity(result, sr_image, hr_image, data_range)
    else:
        for pieces in zip(
            *(np.moveaxis(a, thin[0], 0) for a in (result, sr_image, hr_image)), strict=True
        ):
            _fill_similarity(*pieces, data_range)
    if valid is not None:
        width = [1 if axis in thin else _SSIM_WINDOW for axis in range(3)]
        result[~_fitting(valid, width)] = np.nan
    return result


def mean_inside(values: np.ndarray, mask: np.ndarray | None) -> float:
    """Return the mean of the values that are numbers, in a mask; NaN where there is none."""
    counted = _inside(values, mask)
    counted = counted[~np.isnan(counted)]
    return float(counted.mean(dtype=np.float64)) if counted.size else float("nan")


def _fill_similarity(
    out: np.ndarray, sr_image: np.ndarray, hr_image: np.ndarray, data_range: float
) -> None:
    """Write the similarity into a view `out`, except at its edges."""
    _, similarity = structural_similarity(
        hr_image.astype(np.float64) / data_range,
        sr_image.astype(np.float64) / data_range,
        data_range=1.0,
        gaussian_weights=True,
        sigma=_SSIM_SIGMA,
        use_sample_covariance=False,
        full=True,
    )
    inner = (slice(_SSIM_WINDOW // 2, -(_SSIM_WINDOW // 2)),) * out.ndim
    out[inner] = similarity[inner]


def _difference(sr_image: np.ndarray, hr_image: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
    _check_shapes(sr_image, hr_image, mask)
    return np.subtract(_inside(sr_image, mask), _inside(hr_image, mask), dtype=np.float64)


def _inside(image: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
    return image if mask is None else image[mask]


def _check_shapes(sr_image: np.ndarray, hr_image: np.ndarray, mask: np.ndarray | None) -> None:
    if sr_image.shape != hr_image.shape:
        raise ValueError(f"images differ in shape: {sr_image.shape} and {hr_image.shape}.")
    if mask is not None and mask.shape != hr_image.shape:
        raise ValueError(f"mask of shape {mask.shape} for images of shape {hr_image.shape}.")


def _check_range(data_range: float) -> None:
    if not (np.isfinite(data_range) and data_range > 0):
        raise ValueError(f"data_range must be a positive number, got {data_range}.")
