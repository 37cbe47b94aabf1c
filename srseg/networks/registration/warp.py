"""Warping by displacement fields, and what a field does to volumes.

A displacement field (B, D, *axes) holds for each voxel of the grid it lies on, axis by axis in the
order of the arrays, how far away in voxels the other image is read: `warp(image, u)(p) =
image(p + u(p))`. Positions are voxel centres, so nothing depends on an `align_corners` convention,
and the zero field returns the image bit for bit. Everything is float32 under any autocast.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import torch

from srseg.geometry.separable import resample
from srseg.networks.precision import full_precision


def warp(image: torch.Tensor, displacement: torch.Tensor) -> torch.Tensor:
    """Return `image` read linearly at p + u(p); outside it its edge is repeated.

    Differentiable in both. Where the field is zero the values are the image's own, bit for bit.

    Args:
        image: (B, C, *axes), 2 or 3 axes.
        displacement: (B, D, *axes) in voxels.

    Raises:
        ValueError: if the shapes do not fit each other.
    """
    num_axes = image.ndim - 2
    if displacement.shape != (len(image), num_axes, *image.shape[2:]):
        raise ValueError(
            f"an image of shape {tuple(image.shape)} needs a displacement field of shape "
            f"{(len(image), num_axes, *image.shape[2:])}, got {tuple(displacement.shape)}."
        )
    with full_precision(image.device.type):
        positions = displacement.float() + voxel_positions(image.shape[2:], image.device)
        return sampled(image.float(), positions)


def voxel_positions(shape: Sequence[int], device: torch.device | None = None) -> torch.Tensor:
    """Return (D, *shape) float32: the index of every voxel along each axis."""
    lines = [torch.arange(n, dtype=torch.float32, device=device) for n in shape]
    return torch.stack(torch.meshgrid(*lines, indexing="ij"))


def sampled(image: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """Return `image` (B, C, *axes) read linearly at `positions` (B, D, *any), in voxels.

    The result is (B, C, *any). Outside the image its edge is repeated.
    """
    shape = image.shape[2:]
    lower, upper, weights = [], [], []
    stride = image[0, 0].numel()
    for axis, n in enumerate(shape):
        stride //= n
        position = positions[:, axis].clamp(0, n - 1).flatten(1)
        below = position.detach().floor()
        weights.append(position - below)
        first = below.long()
        lower.append(first * stride)
        upper.append((first + 1).clamp_max(n - 1) * stride)
    flat = image.flatten(2)
    total = None
    for corner in product((0, 1), repeat=len(shape)):
        index, weight = 0, 1
        for low, high, share, side in zip(lower, upper, weights, corner, strict=True):
            index = index + (high if side else low)
            weight = weight * (share if side else 1 - share)
        values = flat.gather(2, index[:, None].expand(-1, flat.shape[1], -1))
        part = values * weight[:, None]
        total = part if total is None else total + part
    return total.unflatten(2, tuple(positions.shape[2:]))


def warp_labels(one_hot: torch.Tensor, displacement: torch.Tensor) -> torch.Tensor:
    """Return (B, *axes) int64 labels: the class that is largest once each is warped linearly.

    Args:
        one_hot: (B, K, *axes).
        displacement: (B, D, *axes) in voxels.
    """
    return warp(one_hot, displacement).argmax(1)


def composed(first: torch.Tensor, then: torch.Tensor) -> torch.Tensor:
    """Return the field c with which `warp(image, c)` is `warp(warp(image, first), then)`.

    Up to interpolation: c(p) = then(p) + first(p + then(p)).

    Args:
        first: (B, D, *axes) in voxels.
        then: the same shape.
    """
    return then + warp(first, then)


def integrated(velocity: torch.Tensor, steps: int) -> torch.Tensor:
    """Return the displacement of a stationary velocity field, by scaling and squaring.

    After Arsigny et al., "A log-Euclidean framework for statistics on diffeomorphisms" (MICCAI
    2006), as VoxelMorph uses it.

    Args:
        velocity: (B, D, *axes) in voxels.
        steps: how often the field is doubled; 0 takes the velocity for the displacement.
    """
    displacement = velocity / 2**steps
    for _ in range(steps):
        displacement = composed(displacement, displacement)
    return displacement


def refined(displacement: torch.Tensor, scale: Sequence[int]) -> torch.Tensor:
    """Return a field on the LR grid, in LR voxels, on the HR grid in HR voxels.

    Both grids share their voxel faces, so HR voxel i lies at LR position (i + 0.5) / scale - 0.5;
    the field is interpolated linearly there, its edge repeated.

    Args:
        displacement: (B, D, *axes).
        scale: HR voxels per LR voxel, one number per axis.
    """
    with full_precision(displacement.device.type):
        shape = [n * s for n, s in zip(displacement.shape[2:], scale, strict=True)]
        fine = resample(displacement.float(), shape, kind="linear")
        factors = torch.tensor(scale, dtype=fine.dtype, device=fine.device)
        return fine * factors.reshape(-1, *(1,) * len(scale))


def jacobian_determinant(displacement_mm: torch.Tensor, spacing: Sequence[float]) -> torch.Tensor:
    """Return (B, *axes) the local volume change of p -> p + u(p).

    Central differences, one-sided at the border: exact for affine fields. At or below 0 the field
    folds.

    Args:
        displacement_mm: (B, D, *axes). In voxels with a spacing of
            ones, which gives the same.
        spacing: mm per axis.
    """
    num_axes = len(spacing)
    rows = []
    for axis in range(num_axes):
        component, slopes = displacement_mm[:, axis].double(), []
        for other, mm in enumerate(spacing):
            slope = torch.zeros_like(component)  # across a single slice nothing changes
            if component.shape[other + 1] > 1:
                slope = torch.gradient(component, spacing=float(mm), dim=other + 1)[0]
            slopes.append(slope + (other == axis))
        rows.append(torch.stack(slopes, -1))
    return torch.linalg.det(torch.stack(rows, -2))


def folded_share(determinant: torch.Tensor, counted: torch.Tensor | None = None) -> float:
    """Return the share of voxels whose Jacobian determinant is not above 0.

    Args:
        determinant: of `jacobian_determinant`.
        counted: bool, the same shape; None for all voxels.
    """
    folded = determinant <= 0
    return float((folded if counted is None else folded[counted]).double().mean())
