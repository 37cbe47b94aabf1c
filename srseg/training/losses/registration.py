"""What registration is trained with: likeness, smoothness, inverse consistency, warped labels.

All float32. Displacement fields are (B, D, *axes) in voxels, as `registration/warp.py` reads them.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch.nn import functional as F

from srseg.geometry.separable import apply_separable
from srseg.networks.precision import full_precision
from srseg.networks.registration.warp import warp
from srseg.training.losses.counted import masked_mean

_EPSILON = 1e-5  # of a product of two variances of normalised images: noise alone is no likeness


def lncc_loss(
    first: torch.Tensor, second: torch.Tensor, valid: torch.Tensor, *, window: int = 9
) -> torch.Tensor:
    """Return 1 - the squared local correlation of two images, 0 (alike up to contrast) to 1.

    The mean over valid voxels of cross^2 / (variance * variance), each taken in the window around
    the voxel (Avants et al., Med Image Anal 2008; Balakrishnan et al., TMI 2019). At the border the
    window is what lies in the image; where either image is constant the correlation is 0.

    Args:
        first: (B, C, *axes).
        second: the same shape.
        valid: (B, 1, *axes) bool.
        window: voxels along every axis, odd; along an axis with fewer, the largest odd number
            that fits.
    """
    with full_precision(first.device.type):
        first, second = first.float(), second.float()
        means = [
            _window_means(n, min(window, n - 1 + n % 2), first.device) for n in first.shape[2:]
        ]

        def local_mean(image: torch.Tensor) -> torch.Tensor:
            return apply_separable(image, means)

        # the variances are small differences: less is lost of images around 0
        first, second = (
            image - image.mean(_axes(image), keepdim=True) for image in (first, second)
        )
        mean_1, mean_2 = local_mean(first), local_mean(second)
        cross = local_mean(first * second) - mean_1 * mean_2
        variance_1 = (local_mean(first * first) - mean_1**2).clamp_min(0)
        variance_2 = (local_mean(second * second) - mean_2**2).clamp_min(0)
        correlation = cross**2 / (variance_1 * variance_2 + _EPSILON)
        return masked_mean(1 - correlation, valid)


@lru_cache(maxsize=64)
def _window_means(n: int, window: int, device: torch.device) -> torch.Tensor:
    """Return the (n, n) matrix of means over the windows around each voxel, cut at the border."""
    index = torch.arange(n)
    near = ((index[:, None] - index).abs() <= window // 2).float()
    return (near / near.sum(1, keepdim=True)).to(device)


def _axes(image: torch.Tensor) -> tuple[int, ...]:
    return tuple(range(2, image.ndim))


def smoothness_loss(displacement: torch.Tensor, spacing: Sequence[float]) -> torch.Tensor:
    """Return the mean squared forward difference of a field, in mm per mm, over all axes.

    Args:
        displacement: (B, D, *axes) in voxels.
        spacing: mm per axis.
    """
    with full_precision(displacement.device.type):
        scale = torch.tensor(spacing, dtype=torch.float32, device=displacement.device)
        in_mm = displacement.float() * scale.reshape(-1, *(1,) * len(spacing))
        means = [
            (in_mm.diff(dim=axis) / mm).square().mean()
            for axis, mm in enumerate(spacing, start=2)
            if in_mm.shape[axis] > 1
        ]
        return torch.stack(means).mean()


def inverse_consistency_loss(
    image: torch.Tensor, there: torch.Tensor, back: torch.Tensor, valid: torch.Tensor
) -> torch.Tensor:
    """Return the mean absolute difference of an image from itself warped there and back.

    Args:
        image: (B, C, *axes).
        there: field of the first warp, (B, D, *axes) in voxels.
        back: field of the second.
        valid: (B, 1, *axes) bool.
    """
    return masked_mean((warp(warp(image, there), back) - image.float()).abs(), valid)


def one_hot(labels: torch.Tensor, num_classes: int) -> torch.Tensor:
    """Return (B, K, *axes) float32 of label maps (B, 1, *axes); labels below 0 are background.

    Args:
        labels: whole numbers.
        num_classes: K, background included; a class that is missing gets a channel of zeros.

    Raises:
        ValueError: if a label is not below `num_classes`.
    """
    labels = labels[:, 0].long().clamp_min(0)
    if int(labels.max()) >= num_classes:
        raise ValueError(f"label {int(labels.max())} is none of the {num_classes} classes.")
    return F.one_hot(labels, num_classes).movedim(-1, 1).float()


def soft_dice_loss(
    probabilities: torch.Tensor, target: torch.Tensor, valid: torch.Tensor
) -> torch.Tensor:
    """Return 1 - the mean soft Dice of the foreground classes; the background is left out.

    Classes that the target lacks in a sample do not count there; 0 if all are lacking.

    Args:
        probabilities: (B, K, *axes), the background first.
        target: the same shape, in [0, 1]: labels that were warped linearly, say.
        valid: (B, 1, *axes) bool.
    """
    with full_precision(probabilities.device.type):
        ours, theirs = (array.float()[:, 1:] * valid for array in (probabilities, target))
        axes = _axes(ours)
        volume = theirs.sum(axes)
        dice = 2 * (ours * theirs).sum(axes) / (ours.sum(axes) + volume).clamp_min(_EPSILON)
        present = (volume.detach() > 0).float()
        return ((1 - dice) * present).sum() / present.sum().clamp_min(1)


def soft_cross_entropy(
    logits: torch.Tensor, target: torch.Tensor, valid: torch.Tensor
) -> torch.Tensor:
    """Return the mean cross entropy over valid voxels against soft labels (B, K, *axes)."""
    with full_precision(logits.device.type):
        values = -(target.float() * logits.float().log_softmax(1)).sum(1, keepdim=True)
        return masked_mean(values, valid)
