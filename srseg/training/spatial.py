"""Rotation and zoom of a patch, drawn before anything is read.

A view is an affine map from offsets in the patch to offsets in the case, both in HR voxels from
the patch's centre. Outside the case its edge is repeated, as everywhere else.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from batchgeneratorsv2.transforms.spatial.spatial import (
    create_affine_matrix_2d,
    create_affine_matrix_3d,
)
from nnunetv2.configuration import ANISO_THRESHOLD
from scipy import ndimage
from torch.nn.functional import grid_sample

# linear interpolation's best shift, in voxels (see `_shifted_linear_matrix`)
_SHIFT = 0.5 * (1 - math.sqrt(1 / 3))


@dataclass(frozen=True)
class RotationRule:
    """How far patches may be turned.

    Attributes:
        in_plane: only around the first axis (2d, and patches too thin for anything else).
        degrees: the largest angle either way.
    """

    in_plane: bool
    degrees: float


def rotation_rule(hr_patch_size: Sequence[int]) -> RotationRule:
    """Return nnU-Net's rule for a 2-D or 3-D patch, decided on the HR grid.

    An LR patch may be thin only because its slices are thick; turned is what the HR patch shows.
    """
    if len(hr_patch_size) == 2:
        elongated = max(hr_patch_size) / min(hr_patch_size) > 1.5
        return RotationRule(in_plane=True, degrees=15.0 if elongated else 180.0)
    if max(hr_patch_size) / hr_patch_size[0] > ANISO_THRESHOLD:
        return RotationRule(in_plane=True, degrees=180.0)
    return RotationRule(in_plane=False, degrees=30.0)


def affine_matrix(
    angles: Sequence[float], zoom: float, spacing: Sequence[float], *, in_plane: bool
) -> np.ndarray:
    """Return the (3, 3) map from patch to case offsets, both in voxels.

    Args:
        angles: radians around the three axes; in-plane only the first counts.
        zoom: above 1 shows more of the case, so that objects become smaller.
        spacing: mm per axis. Turning happens in mm, so that it does not shear.
        in_plane: leave the first axis alone.
    """
    matrix = np.eye(3)
    if in_plane:
        matrix[1:, 1:] = create_affine_matrix_2d(angles[0], [zoom] * 2)
    else:
        matrix = create_affine_matrix_3d(angles, [zoom] * 3)
    mm = np.asarray(spacing, dtype=float)
    return matrix * (mm[None] / mm[:, None])


@dataclass(frozen=True)
class View:
    """A patch turned and zoomed inside a case.

    Attributes:
        matrix: (3, 3), patch offsets to case offsets in HR voxels.
        centre: index of the patch's centre in the case, (Z, Y, X), may lie between voxels.
    """

    matrix: np.ndarray
    centre: np.ndarray

    @property
    def in_plane(self) -> bool:
        """Whether slices stay slices: nothing is interpolated along the first axis then."""
        return bool(np.array_equal(self.matrix[0], [1, 0, 0]) and not self.matrix[1:, 0].any())

    def corners(self, low: Sequence[float], high: Sequence[float]) -> np.ndarray:
        """Return the (8, 3) case indices of a box's corners, given as offsets in the patch."""
        corners = np.array(list(itertools.product(*zip(low, high, strict=True))))
        return corners @ self.matrix.T + self.centre

    def reach_of(self, shape: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """Return lowest and highest patch offset at which voxels of the case can be seen."""
        faces = np.array(list(itertools.product(*((-0.5, n - 0.5) for n in shape))))
        offsets = np.linalg.solve(self.matrix, (faces - self.centre).T)
        return offsets.min(axis=1), offsets.max(axis=1)

    def source_box(
        self, low: np.ndarray, high: np.ndarray, shape: Sequence[int], halo: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return start and stop of the case's voxels that a box of patch offsets needs.

        `halo` voxels are added for the interpolation; the box is clipped to the case and never
        empty, so that there is an edge to repeat.
        """
        corners = self.corners(low, high)
        widths = np.array([0 if self.in_plane else halo, halo, halo])
        start = np.floor(corners.min(axis=0)).astype(int) - widths
        stop = np.ceil(corners.max(axis=0)).astype(int) + widths + 1
        start = np.clip(start, 0, np.asarray(shape) - 1)
        return start, np.clip(stop, start + 1, shape)


class ViewSampler:
    """Samples arrays of one region of a case at the voxels of a turned patch.

    Args:
        view: where the patch lies.
        low: offset of the first patch voxel from the patch's centre.
        out_shape: voxels of the patch (Z, Y, X).
        region_start: index of the region's first voxel in the case.
        shape: of the whole case, whose edge is repeated.
    """

    def __init__(
        self,
        view: View,
        low: np.ndarray,
        out_shape: Sequence[int],
        *,
        region_start: np.ndarray,
        shape: Sequence[int],
    ) -> None:
        self._matrix = view.matrix
        self._origin = view.matrix @ low + view.centre  # the first voxel's index in the case
        self._out_shape = tuple(int(n) for n in out_shape)
        self._region_start = region_start
        self._shape = tuple(shape)
        self._first = 1 if view.in_plane else 0  # axes before it are only indexed
        self._coordinates = self._case_coordinates()

    def inside(self) -> torch.Tensor:
        """Return (1, Z, Y, X), True where a voxel's centre lies within the case's outer faces."""
        inside = torch.ones(self._out_shape, dtype=torch.bool)
        for coordinate, n in zip(self._coordinates, self._shape[self._first :], strict=True):
            inside &= (coordinate >= -0.5) & (coordinate <= n - 0.5)
        if self._first:
            z = self._slices()
            inside &= torch.from_numpy((z >= 0) & (z < self._shape[0]))[:, None, None]
        return inside[None]

    def image(self, region: torch.Tensor, interpolation: str) -> torch.Tensor:
        """Return (C, Z, Y, X) float, interpolated from a region (C, ...) of the case.

        Raises:
            ValueError: for an unknown interpolation; the known ones are listed.
        """
        return interpolator(interpolation).sample(self, self._leading(region))

    def labels(self, region: torch.Tensor) -> torch.Tensor:
        """Return (1, Z, Y, X) labels: at each voxel the one with the largest interpolated share."""
        region = self._leading(region)
        present = torch.unique(region)
        if len(present) == 1:
            return region.new_full((1, *self._out_shape), int(present[0]))
        # the shares sum to 1, so that of the first label is known without sampling it
        shares = (region[:, None] == present[1:].view(-1, *[1] * (region.ndim - 1))).float()
        sampled = self.linear(shares.flatten(0, 1), 0.0).unflatten(0, shares.shape[:2])
        first = 1 - sampled.sum(dim=1, keepdim=True)
        winner = torch.cat((first, sampled), dim=1).argmax(dim=1)
        return present[winner].reshape(1, *self._out_shape)

    def linear(self, leading: torch.Tensor, shift: float) -> torch.Tensor:
        """Return (N, *out) of (N, *region), linearly interpolated `shift` voxels further down."""
        columns = []
        for coordinate, n, start, n_region in zip(
            self._coordinates[::-1],
            self._shape[::-1],
            self._region_start[::-1],
            leading.shape[:0:-1],
            strict=False,
        ):
            index = coordinate.clamp(0, n - 1) - (float(start) + shift)
            columns.append((2 * index + 1) / n_region - 1)  # faces at -1 and 1
        grid = torch.stack(columns, dim=-1)
        # "border" also covers what rounding or the shift puts a little outside the region
        return grid_sample(
            leading[None], grid[None], mode="bilinear", padding_mode="border", align_corners=False
        )[0]

    def spline(self, leading: torch.Tensor) -> torch.Tensor:
        """Return (N, *out) of (N, *region), interpolated by a cubic B-spline."""
        first = self._first
        matrix = self._matrix[first:, first:]
        offset = (self._origin - self._region_start)[first:]
        out_shape = self._out_shape[first:]
        sampled = [
            ndimage.affine_transform(one, matrix, offset, out_shape, order=3, mode="nearest")
            for one in leading.numpy()
        ]
        return torch.from_numpy(np.stack(sampled))

    def restored(self, sampled: torch.Tensor, channels: int) -> torch.Tensor:
        """Return (C, Z, Y, X) of what was sampled with slices as leading axis."""
        return sampled.reshape(channels, *self._out_shape)

    def _leading(self, region: torch.Tensor) -> torch.Tensor:
        """Return the region with all axes that are not interpolated merged into the first."""
        if not self._first:
            return region
        index = np.clip(self._slices(), 0, self._shape[0] - 1) - int(self._region_start[0])
        return region[:, torch.from_numpy(index)].flatten(0, 1)

    def _slices(self) -> np.ndarray:
        return int(round(self._origin[0])) + np.arange(self._out_shape[0])

    def _case_coordinates(self) -> list[torch.Tensor]:
        """Return per interpolated axis the case index of every patch voxel, broadcast."""
        first = self._first
        steps = [
            torch.arange(n, dtype=torch.float32).view(*[-1 if i == j else 1 for j in range(3)])
            for i, n in enumerate(self._out_shape)
        ]
        coordinates = []
        for axis in range(first, 3):
            total = torch.zeros(self._out_shape[first:]) + float(self._origin[axis])
            for i in range(first, 3):
                step = steps[i][0] if first else steps[i]
                total += float(self._matrix[axis, i]) * step
            coordinates.append(total)
        return coordinates
