"""Losses on the SR image, averaged over the voxels that have a truth."""

from __future__ import annotations

import torch

from srseg.training.losses.counted import hr_truth
from srseg.training.losses.terms import LossContext, Term


def masked_l1(sr_image: torch.Tensor, hr_image: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """Return the mean absolute error over valid voxels (0 where there is none), fp32.

    Args:
        sr_image: (B, C, Z, Y, X) or (B, C, Y, X).
        hr_image: the same shape, the same intensity frame.
        valid: (B, 1, ...) bool on the HR grid.

    Raises:
        ValueError: if the shapes differ (broadcasting would hide it).
    """
    if sr_image.shape != hr_image.shape or valid.shape[2:] != hr_image.shape[2:]:
        raise ValueError(
            f"SR image {tuple(sr_image.shape)}, HR image {tuple(hr_image.shape)} and valid mask "
            f"{tuple(valid.shape)} do not match."
        )
    difference = (sr_image.float() - hr_image.float()).abs() * valid
    return difference.sum() / (valid.sum() * sr_image.shape[1]).clamp_min(1)


def l1_term(context: LossContext) -> Term:
    """Return the term `sr_l1`."""
    return lambda output, batch: masked_l1(output.sr, *hr_truth(batch))
