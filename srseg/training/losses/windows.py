"""Windows that lie in what counts as a whole: filters must not read what nobody knows."""

from __future__ import annotations

from collections.abc import Sequence

import torch


def fitting(valid: torch.Tensor, widths: Sequence[int]) -> torch.Tensor:
    """Return which windows of a mask hold nothing but true voxels.

    Args:
        valid: (B, 1, ...) bool.
        widths: voxels per spatial axis; none wider than the mask.

    Returns:
        (B, 1, n - width + 1 per axis) bool: windows by their first voxel, none beyond the mask.
    """
    for axis, width in enumerate(widths, start=2):
        if width > 1:
            valid = valid.unfold(axis, width, 1).all(-1)
    return valid
