"""Interpolation of the LR input to the HR grid, the image that the SR residual is added to.

The same map as `srseg.geometry.separable.resample(..., kind="cubic")`, written by phases: with a
whole-number scale the weights of an HR voxel depend only on its position inside its LR voxel.
Constant weights need no matrix per image size, which `torch.compile` could not trace, and show
that a slab with `REACH` voxels of context is interpolated exactly as in the whole.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F

from srseg.geometry.separable import interpolation_matrix
from srseg.networks.precision import full_precision

REACH = 2
"""LR voxels on each side that a cubic kernel reaches along an axis with scale > 1."""


def phase_weights(scale: int) -> list[list[float]]:
    """Return the (scale, 2 * REACH + 1) weights of the LR neighbours for each HR phase."""
    window = 2 * REACH + 1
    matrix = interpolation_matrix(window, window * scale, kind="cubic")
    return matrix[REACH * scale : (REACH + 1) * scale].tolist()  # the middle voxel's phases


class Interpolation(nn.Module):
    """Face-aligned separable cubic interpolation by whole numbers, clamped at the edges.

    Args:
        scale: refinement per axis; an axis with 1 stays untouched.
    """

    def __init__(self, scale: Sequence[int]) -> None:
        super().__init__()
        self.scale = tuple(int(factor) for factor in scale)
        for axis, factor in enumerate(self.scale):
            # not persistent: follows from the plans, so a checkpoint must not carry it
            weights = None if factor == 1 else torch.tensor(phase_weights(factor))
            self.register_buffer(f"weights_{axis}", weights, persistent=False)

    @property
    def reach(self) -> tuple[int, ...]:
        """LR voxels of context per axis that an HR voxel depends on."""
        return tuple(0 if factor == 1 else REACH for factor in self.scale)

    def reach_beyond(self, margin: Sequence[int]) -> tuple[int, ...]:
        """LR voxels of context per axis and side that a neighbourhood on the HR grid depends on.

        Args:
            margin: HR voxels per axis by which it goes beyond an LR voxel's own; none is `reach`.
        """
        return tuple(_reach(factor, more) for factor, more in zip(self.scale, margin, strict=True))

    def forward(self, lr_image: torch.Tensor) -> torch.Tensor:
        """Return `lr_image` (B, C, z, y, x) as float32 on the HR grid (B, C, Z, Y, X)."""
        with full_precision(lr_image.device.type):
            image = lr_image.float()
            for i in range(len(self.scale)):
                weights = getattr(self, f"weights_{i}")
                if weights is not None:
                    image = _refine_axis(image, 2 + i, weights)
        return image


def _reach(scale: int, margin: int) -> int:
    if scale == 1:
        return margin
    downwards = [  # per phase, the farthest neighbour with a weight; upwards is its mirror image
        max(REACH - i for i, weight in enumerate(row) if abs(weight) > 1e-6)
        for row in phase_weights(scale)
    ]
    return max(downwards[i % scale] - i // scale for i in range(-margin, scale))


def _refine_axis(image: torch.Tensor, axis: int, weights: torch.Tensor) -> torch.Tensor:
    size = image.shape[axis]
    index = torch.arange(-REACH, size + REACH, device=image.device).clamp(0, size - 1)
    windows = image.index_select(axis, index).unfold(axis, 2 * REACH + 1, 1)
    # contiguous: on a strided view `@` becomes one tiny product per row, 100 times slower
    phases = F.linear(windows.contiguous(), weights)  # (..., n, ..., scale)
    return phases.movedim(-1, axis + 1).flatten(axis, axis + 1)
