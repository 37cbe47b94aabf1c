"""Guidance: a crop of the HR image as an extra input, where somebody has one.

The idea is PFSeg's (Wang et al., "Patch-free 3D medical image segmentation driven by
super-resolution technique and self-supervised guidance", MICCAI 2021). There the crop's features
met whichever bottleneck cells had the same index, places that the crop does not show. Here every
bottleneck cell gets the features of the part of the crop that lies in it, and a mask channel
says how much of the cell that is.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, prod
from typing import Any, NamedTuple

import torch
from dynamic_network_architectures.building_blocks.residual import BasicBlockD
from torch import nn
from torch.nn import functional as F

from srseg.networks.precision import full_precision

GUIDANCE_FRACTION = 0.25
"""Share of the HR grid that a crop takes along each axis, as published."""


class Guidance(NamedTuple):
    """An HR crop and where it lies.

    Attributes:
        image: (B, C, gZ, gY, gX) part of the HR image, in the normalised frame of the LR input;
            of any size, the same for the whole batch.
        start: (B, ndim) whole numbers, the HR voxel index of the crop's first voxel, counted from
            the first HR voxel of the network's input. On the CPU nothing has to wait for it.
    """

    image: torch.Tensor
    start: torch.Tensor


def crop_size(hr_shape: Sequence[int], fraction: float | Sequence[float]) -> tuple[int, ...]:
    """Return the size of a crop of `fraction` of each axis: at least 2 voxels, where there are.

    Raises:
        ValueError: if there is not one fraction per axis, or one for all.
    """
    shares = [fraction] * len(hr_shape) if isinstance(fraction, int | float) else list(fraction)
    if len(shares) != len(hr_shape):
        raise ValueError(
            f"the fraction of guidance is {shares}; one number, or {len(hr_shape)} are needed, "
            "one per axis."
        )
    return tuple(
        min(n, max(2, round(share * n))) for n, share in zip(hr_shape, shares, strict=True)
    )


def check_guidance(guidance: Guidance, batch: int, channels: int, hr_shape: Sequence[int]) -> None:
    """Raise a ValueError where `guidance` does not fit an input.

    Args:
        guidance: what to check.
        batch: samples of the input.
        channels: of the input.
        hr_shape: HR voxels of the input per axis.
    """
    image, start = guidance
    ndim, size = len(hr_shape), tuple(image.shape[2:])
    if tuple(image.shape[:2]) != (batch, channels) or len(size) != ndim or prod(size) < 2:
        raise ValueError(
            f"the guidance has the shape {tuple(image.shape)}; ({batch}, {channels}, *axes) with "
            f"{ndim} axes and more than one voxel is needed."
        )
    if tuple(start.shape) != (batch, ndim) or start.is_floating_point():
        raise ValueError(
            f"the start of the guidance has the shape {tuple(start.shape)} and the type "
            f"{start.dtype}; whole numbers of the shape {(batch, ndim)} are needed."
        )
    last = [n - m for n, m in zip(hr_shape, size, strict=True)]
    if min(last) < 0:
        raise ValueError(
            f"the guidance of size {size} is larger than the volume of {tuple(hr_shape)} HR voxels."
        )
    for row in start.tolist():
        if not all(0 <= first <= most for first, most in zip(row, last, strict=True)):
            raise ValueError(
                f"the guidance of size {size} starts at HR voxel {tuple(row)}; in this volume of "
                f"{tuple(hr_shape)} HR voxels it must start from {(0,) * ndim} to {tuple(last)}."
            )


class GuidanceBranch(nn.Module):
    """A small residual encoder for the crop, and its place in the bottleneck.

    Residual blocks with max pools of 2 between them, as published; an axis is pooled less often
    where a bottleneck cell has fewer HR voxels. The features are then averaged over the cells,
    weighted by how far they overlap, so the crop may have any size and lie anywhere.

    Where the crop shows nothing, and everywhere without guidance, the cells carry a learned
    constant (zero at first) and the mask is 0.

    Args:
        input_channels: channels of the HR crop.
        features: channels of each block, finest first.
        cell: HR voxels of a bottleneck cell, per axis.
        kernel_size: odd size per axis.
        block_options: as `srseg.networks.decoder.Decoder` takes them.
    """

    def __init__(
        self,
        input_channels: int,
        features: Sequence[int],
        *,
        cell: Sequence[int],
        kernel_size: Sequence[int],
        block_options: dict[str, Any],
    ) -> None:
        super().__init__()
        if not features or min(features) < 1:
            raise ValueError(
                f"guidance_features is {list(features)}; at least one number >= 1 is needed."
            )
        self.cell = tuple(cell)
        self.pools = _pool_sizes(self.cell, len(features) - 1)
        widths = [input_channels, *features]
        self.blocks = nn.ModuleList(
            BasicBlockD(
                input_channels=before,
                output_channels=after,
                kernel_size=list(kernel_size),
                stride=1,
                **block_options,
            )
            for before, after in zip(widths, features, strict=False)
        )
        self.absent = nn.Parameter(torch.zeros(features[-1]))
        self.num_channels = features[-1] + 1

    def forward(self, guidance: Guidance | None, bottleneck: torch.Tensor) -> torch.Tensor:
        """Return `bottleneck` (B, F, *cells) with `num_channels` more: features, then the mask.

        The mask is the covered share of a cell, from 0 to 1.

        Args:
            guidance: image as the trunk reads it (clipped); None for none.
            bottleneck: the encoder's coarsest features.

        Raises:
            ValueError: if the crop reaches outside the volume that the bottleneck describes.
        """
        batch, cells = len(bottleneck), bottleneck.shape[2:]
        absent = self.absent.view(1, -1, *(1 for _ in cells)).expand(batch, -1, *cells)
        if guidance is None:
            placed = absent + self._unused()
            covered = torch.zeros_like(placed[:, :1])
        else:
            hr_shape = [n * m for n, m in zip(cells, self.cell, strict=True)]
            check_guidance(guidance, batch, self.blocks[0].input_channels, hr_shape)
            features, step = self._encode(guidance.image)
            with full_precision(bottleneck.device.type):
                features, covered = self._place(features.float(), step, guidance, cells)
                placed = covered * features + (1 - covered) * absent
        return torch.cat((bottleneck, placed.to(bottleneck), covered.to(bottleneck)), 1)

    def _encode(self, image: torch.Tensor) -> tuple[torch.Tensor, list[int]]:
        """Return the crop's features and how many HR voxels one of them stands for, per axis."""
        features, step = self.blocks[0](image), [1] * len(self.cell)
        max_pool = F.max_pool2d if len(self.cell) == 2 else F.max_pool3d
        for pool, block in zip(self.pools, self.blocks[1:], strict=True):
            left = [ceil(n / p) for n, p in zip(features.shape[2:], pool, strict=True)]
            if prod(left) > 1:  # a single voxel cannot be normalised over its instance
                # the last window may be partly outside: sizes need not be multiples
                features = max_pool(features, pool, pool, ceil_mode=True)
                step = [s * p for s, p in zip(step, pool, strict=True)]
            features = block(features)
        return features, step

    def _place(
        self,
        features: torch.Tensor,
        step: Sequence[int],
        guidance: Guidance,
        cells: Sequence[int],
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the mean feature in each cell and the covered share (B, 1, *cells)."""
        start = guidance.start.to(features.device)
        covered = features.new_ones(len(features), 1, *(1 for _ in cells))
        for i, (num_cells, cell) in enumerate(zip(cells, self.cell, strict=True)):
            axis, size = 2 + i, guidance.image.shape[2 + i]
            overlap = _overlap(start[:, i], size, step[i], num_cells, cell)
            length = overlap.sum(-1)  # HR voxels of each cell that the crop covers
            mean = overlap / length.clamp_min(1)[..., None]
            rows = features.movedim(axis, -1)
            placed = rows.flatten(1, -2) @ mean.transpose(1, 2)
            features = placed.unflatten(1, rows.shape[1:-1]).movedim(-1, axis)
            shape = [len(features), *(1 for _ in features.shape[1:])]
            shape[axis] = num_cells
            covered = covered * (length / cell).view(shape)
        return features, covered

    def _unused(self) -> torch.Tensor | float:
        """Return a zero that depends on all blocks in training: DDP wants every gradient."""
        if not (self.training and torch.is_grad_enabled()):
            return 0.0
        return 0 * torch.stack([parameter.sum() for parameter in self.blocks.parameters()]).sum()

    def compute_conv_feature_map_size(self, crop_shape: Sequence[int]) -> int:
        """Return the elements of all convolution outputs for one crop of `crop_shape`."""
        total, shape = 0, list(crop_shape)
        for pool, block in zip([[1] * len(shape), *self.pools], self.blocks, strict=True):
            pooled = [ceil(n / p) for n, p in zip(shape, pool, strict=True)]
            shape = pooled if prod(pooled) > 1 else shape
            total += int(block.compute_conv_feature_map_size(shape))
        return total


def _pool_sizes(cell: Sequence[int], num_pools: int) -> list[list[int]]:
    """Return each pool's size per axis: together they stay within a cell.

    An axis with few HR voxels per cell is pooled last, where the trunk of anisotropic data
    strides it as well.
    """
    counts = [min(num_pools, n.bit_length() - 1) for n in cell]  # floor(log2(n))
    return [[2 if i >= num_pools - count else 1 for count in counts] for i in range(num_pools)]


def _overlap(start: torch.Tensor, size: int, step: int, num_cells: int, cell: int) -> torch.Tensor:
    """Return how many HR voxels each cell shares with each feature, (B, cells, features).

    Args:
        start: (B,) first HR voxel of the crop along this axis.
        size: HR voxels of the crop.
        step: HR voxels of a feature; the last one may have fewer.
        num_cells: of the bottleneck.
        cell: HR voxels of each.
    """
    low = torch.arange(0, size, step, device=start.device)
    high = (low + step).clamp_max(size)
    first = torch.arange(num_cells, device=start.device)[:, None] * cell
    begin = torch.maximum(start[:, None, None] + low, first)
    end = torch.minimum(start[:, None, None] + high, first + cell)
    return (end - begin).clamp_min(0).float()
