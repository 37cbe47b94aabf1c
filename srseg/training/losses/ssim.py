"""The structural similarity as a loss."""

from __future__ import annotations

import torch

from srseg.geometry.separable import apply_separable
from srseg.training.losses.counted import hr_truth, masked_mean
from srseg.training.losses.intensity import percentile_range, rescaled
from srseg.training.losses.terms import LossContext, Option, Term, is_positive
from srseg.training.losses.windows import fitting

# the window of Wang et al. (IEEE TIP 2004), as in srseg.metrics.image
WINDOW = 11
_SIGMA = 1.5
_C1, _C2 = 0.01**2, 0.03**2

SSIM_OPTIONS = {
    "data_range": Option(
        None, "null or a number above 0", lambda value: value is None or is_positive(value)
    )
}


def ssim_loss(
    sr_image: torch.Tensor,
    hr_image: torch.Tensor,
    valid: torch.Tensor,
    *,
    data_range: float | None = None,
) -> torch.Tensor:
    """Return 1 - SSIM, the mean over the windows that lie in `valid` as a whole, fp32.

    Gaussian windows of sigma 1.5, 11 voxels wide; along axes with fewer voxels they are one voxel
    wide (thick slices). 0 where no window fits.

    Args:
        sr_image: (B, C, Z, Y, X) or (B, C, Y, X).
        hr_image: the same shape, the same intensity frame.
        valid: (B, 1, ...) bool on the HR grid.
        data_range: the peak, in units of the images. None is the distance of the 0.5th and 99.5th
            percentile of the batch's valid HR voxels per channel, at least 1. The 0.5th
            percentile is taken off either image: SSIM was made for intensities above 0.

    Raises:
        ValueError: if fewer than two axes have 11 voxels.
    """
    shape = hr_image.shape[2:]
    widths = [WINDOW if n >= WINDOW else 1 for n in shape]
    if widths.count(WINDOW) < 2:
        raise ValueError(
            f"sr_ssim needs {WINDOW} voxels along two axes, the HR patch is {tuple(shape)}."
        )
    low, width = percentile_range(hr_image, valid)
    if data_range is not None:
        width = torch.full_like(width, data_range)
    # products with matrices keep fp32 on a GPU, where convolutions may round to TF32: the
    # variances below are small differences
    matrices = [
        None if w == 1 else _windows(n, sr_image.device) for n, w in zip(shape, widths, strict=True)
    ]
    with torch.autocast(sr_image.device.type, enabled=False):
        x, y = (rescaled(image, low, width) for image in (sr_image, hr_image))
        similarity = _similarity(x, y, matrices)
    return masked_mean(1 - similarity, fitting(valid, widths))


def _windows(n: int, device: torch.device) -> torch.Tensor:
    """Return the (n - 10, n) matrix of the Gaussian windows along an axis."""
    distance = torch.arange(WINDOW, device=device) - WINDOW // 2
    weights = torch.exp(-0.5 * (distance / _SIGMA) ** 2)
    first = torch.arange(n - WINDOW + 1, device=device)[:, None]
    matrix = torch.zeros(len(first), n, device=device)
    matrix[first, first + torch.arange(WINDOW, device=device)] = weights / weights.sum()
    return matrix


def _similarity(
    x: torch.Tensor, y: torch.Tensor, matrices: list[torch.Tensor | None]
) -> torch.Tensor:
    mean_x, mean_y = apply_separable(x, matrices), apply_separable(y, matrices)
    # rounding must not make a variance negative
    variance_x = (apply_separable(x * x, matrices) - mean_x**2).clamp_min(0)
    variance_y = (apply_separable(y * y, matrices) - mean_y**2).clamp_min(0)
    covariance = apply_separable(x * y, matrices) - mean_x * mean_y
    luminance = (2 * mean_x * mean_y + _C1) / (mean_x**2 + mean_y**2 + _C1)
    return luminance * (2 * covariance + _C2) / (variance_x + variance_y + _C2)


def ssim_term(context: LossContext, data_range: float | None) -> Term:
    """Return the term `sr_ssim`."""
    return lambda output, batch: ssim_loss(output.sr, *hr_truth(batch), data_range=data_range)
