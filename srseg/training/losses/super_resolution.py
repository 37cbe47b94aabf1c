"""Losses on the SR image voxel by voxel, averaged over the voxels that have a truth."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from srseg.networks.output import JointOutput
from srseg.training.losses.counted import hr_truth, masked_mean
from srseg.training.losses.terms import LossContext, Term, one_of


def masked_l1(sr_image: torch.Tensor, hr_image: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """Return the mean absolute error over valid voxels (0 where there is none), fp32.

    Args:
        sr_image: (B, C, Z, Y, X) or (B, C, Y, X).
        hr_image: the same shape, the same intensity frame.
        valid: (B, 1, ...) bool on the HR grid.

    Raises:
        ValueError: if the shapes differ (broadcasting would hide it).
    """
    _check_shapes(sr_image, hr_image, valid)
    return masked_mean((sr_image.float() - hr_image.float()).abs(), valid)


def masked_mse(sr_image: torch.Tensor, hr_image: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """Return the mean squared error over valid voxels; otherwise as `masked_l1`."""
    _check_shapes(sr_image, hr_image, valid)
    return masked_mean((sr_image.float() - hr_image.float()).square(), valid)


def _check_shapes(sr_image: torch.Tensor, hr_image: torch.Tensor, valid: torch.Tensor) -> None:
    if sr_image.shape != hr_image.shape or valid.shape[2:] != hr_image.shape[2:]:
        raise ValueError(
            f"SR image {tuple(sr_image.shape)}, HR image {tuple(hr_image.shape)} and valid mask "
            f"{tuple(valid.shape)} do not match."
        )


NORMS = {"mse": masked_mse, "l1": masked_l1}
GUIDANCE_OPTIONS = {"norm": one_of("mse", NORMS)}


def l1_term(context: LossContext) -> Term:
    """Return the term `sr_l1`."""
    return lambda output, batch: masked_l1(output.sr, *hr_truth(batch))


def mse_term(context: LossContext) -> Term:
    """Return the term `sr_mse`."""
    return lambda output, batch: masked_mse(output.sr, *hr_truth(batch))


def guidance_term(context: LossContext, norm: str) -> Term:
    """Return the term `guidance`: the SR image where the network was given the HR image.

    PFSeg (Wang et al., MICCAI 2021) averages over the whole volume, which divides the weight by 64
    for its crop; this is the mean over the crop. 0 for a batch without `guidance_mask`
    (B, 1, Z, Y, X) bool or with an empty one.
    """

    def term(output: JointOutput, batch: Mapping[str, Any]) -> torch.Tensor:
        hr_image, valid = hr_truth(batch)
        given = batch.get("guidance_mask")
        counted = torch.zeros_like(valid) if given is None else valid & given
        return NORMS[norm](output.sr, hr_image, counted)

    return term
