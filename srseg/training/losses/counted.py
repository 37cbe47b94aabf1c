"""What of a batch counts: the voxels with a truth, of the samples that have one.

A batch of semi-supervised training says with `labelled` and `has_hr`, (B,) bool each, which samples
have a segmentation and an HR image; without them all have.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch


def per_sample(flags: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Return `flags` (B,) with as many axes as `like` (B, ...), to be combined with it."""
    return flags.reshape(-1, *(1,) * (like.ndim - 1))


def labelled_valid(batch: Mapping[str, Any]) -> torch.Tensor:
    """Return (B, 1, Z, Y, X) bool: where the segmentation is known."""
    valid, labelled = batch["valid"], batch.get("labelled")
    return valid if labelled is None else valid & per_sample(labelled, valid)


def hr_truth(batch: Mapping[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the HR image (B, C, Z, Y, X) and (B, 1, Z, Y, X) bool: where it is one.

    Samples without an HR image have zeros for it, whatever stood there.
    """
    hr_image, valid, has_hr = batch["hr"], batch["valid"], batch.get("has_hr")
    if has_hr is None:
        return hr_image, valid
    return (
        torch.where(per_sample(has_hr, hr_image), hr_image, 0),  # NaN times 0 would be NaN
        valid & per_sample(has_hr, valid),
    )


def zero_of(*outputs: torch.Tensor) -> torch.Tensor:
    """Return 0, fp32, from which backward reaches every output with a gradient of zeros.

    A term without anything to count still gives each head a gradient, as DDP wants.
    """
    return torch.stack([output.float().mul(0).sum() for output in outputs]).sum()


def masked_mean(values: torch.Tensor, counted: torch.Tensor) -> torch.Tensor:
    """Return the mean of `values` (B, C, ...) where `counted` (B, 1, ...) bool; 0 if nowhere."""
    return (values * counted).sum() / (counted.sum() * values.shape[1]).clamp_min(1)
