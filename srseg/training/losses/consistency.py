"""Measurement consistency: the SR image, degraded, should be the LR image it was made from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from srseg.degradation.degradation import Degradation
from srseg.networks.output import JointOutput
from srseg.training.losses.counted import masked_mean
from srseg.training.losses.terms import LossContext, Option, Term, is_number
from srseg.training.losses.windows import fitting

CONSISTENCY_OPTIONS = {
    "margin": Option(
        None,
        "null or a whole number of LR voxels >= 0",
        lambda value: value is None or (is_number(value) and value == int(value) >= 0),
    )
}


def consistency_loss(
    sr_image: torch.Tensor,
    lr_image: torch.Tensor,
    valid: torch.Tensor,
    *,
    degradation: Degradation,
    margin: Sequence[int],
) -> torch.Tensor:
    """Return the mean absolute difference of the degraded SR image and the LR image, fp32.

    The operator's linear part is compared, without its rule for background: where an image has
    exact background, a few LR voxels beside the body differ by the ringing.

    Args:
        sr_image: (B, C, Z, Y, X).
        lr_image: (B, C, z, y, x), the same intensity frame.
        valid: (B, 1, Z, Y, X) bool.
        degradation: from the HR to the LR grid.
        margin: LR voxels per axis over which the operator reads. At the border of a patch it
            would read its mirror image there, so that many LR voxels are left out; inside, an LR
            voxel counts whose whole footprint, so many LR voxels around it, is valid.

    Raises:
        ValueError: if the margins leave nothing of the patch.
    """
    lr_shape = tuple(lr_image.shape[2:])
    inner = [n - 2 * m for n, m in zip(lr_shape, margin, strict=True)]
    if min(inner) < 1:
        raise ValueError(
            f"lr_consistency leaves out {tuple(margin)} LR voxels on either side, the LR patch is "
            f"only {lr_shape}; give the term a smaller margin or plan a larger patch."
        )
    for axis, s in enumerate(degradation.scale, start=2):
        if s > 1:
            valid = valid.unflatten(axis, (-1, s)).all(axis + 1)
    difference = (degradation.linear(sr_image.float()) - lr_image.float()).abs()
    for axis, (n, m) in enumerate(zip(inner, margin, strict=True), start=2):
        difference = difference.narrow(axis, m, n)
    return masked_mean(difference, fitting(valid, [2 * m + 1 for m in margin]))


def consistency_term(context: LossContext, margin: int | None) -> Term:
    """Return the term `lr_consistency`, which every sample counts in, with an HR image or without.

    The planned operator is assumed. Where augmentation draws another one, or adds noise to the LR
    image, the loss does not vanish even for the true HR image.

    Args:
        context: with the degradation.
        margin: LR voxels on every axis that the operator mixes, None for what it needs. A k-space
            crop needs 6, which a small patch may not have.

    Raises:
        ValueError: if LR images come from files, so that nobody knows the degradation.
    """
    degradation = context.degradation
    if degradation is None or degradation.spec.paired:
        raise ValueError(
            "lr_consistency needs a degradation, but the LR images of these plans are real ones; "
            "leave the term out."
        )
    margins = [m if margin is None else min(m, int(margin)) for m in degradation.margin]
    two_dimensional = len(context.scale) == 2

    def term(output: JointOutput, batch: Mapping[str, Any]) -> torch.Tensor:
        images = output.sr, batch["data"], batch["valid"]
        if two_dimensional:
            images = tuple(image.unsqueeze(2) for image in images)
        return consistency_loss(*images, degradation=degradation, margin=margins)

    return term
