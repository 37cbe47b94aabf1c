"""Rotation and zoom of a patch, drawn before anything is read.

A view maps offsets in the patch to offsets in the case, both in HR voxels from the patch's centre.
Outside the case its edge is repeated, as everywhere else.
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

# Voxels around a region that an interpolation reads (the prefilters decay by 0.27 per voxel).
# One rotation of 40 x 56 x 40 voxels on one core, and gain and error at half the Nyquist frequency:
#   linear           2.4 ms   0.69   33 %: it blurs the SR target
#   shifted_linear   3.7 ms   0.99   17 %
#   cubic             30 ms   0.98    5 %
INTERPOLATION_HALO = {"linear": 1, "shifted_linear": 6, "cubic": 6}
_SHIFT = 0.5 * (1 - math.sqrt(1 / 3))
_LABELS_AT_ONCE = 4  # bounds the memory of many labels


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
    if in_plane:
        matrix = np.eye(3)
        matrix[1:, 1:] = create_affine_matrix_2d(angles[0], [zoom] * 2)
    else:
        matrix = create_affine_matrix_3d(angles, [zoom] * 3)
    mm = np.asarray(spacing, dtype=float)
    return matrix * (mm[None] / mm[:, None])


@dataclass(frozen=True)
class View:
    """How a patch looks at a case.

    Attributes:
        matrix: (3, 3), patch offsets to case offsets in HR voxels.
        centre: case index (Z, Y, X) of the patch's centre; may lie between voxels.
        case_shape: HR shape of the case.
    """

    matrix: np.ndarray
    centre: np.ndarray
    case_shape: tuple[int, ...]

    @property
    def in_plane(self) -> bool:
        """Whether slices stay slices: nothing is interpolated along the first axis then."""
        return bool(np.array_equal(self.matrix[0], [1, 0, 0]) and not self.matrix[1:, 0].any())

    def extent(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the lowest and highest patch offset at which a voxel of the case is seen."""
        corners = _corners(np.zeros(3), np.asarray(self.case_shape) - 1.0)
        offsets = np.linalg.solve(self.matrix, (corners - self.centre).T)
        return offsets.min(axis=1), offsets.max(axis=1)


class Frame:
    """The voxels of a turned patch, sampled from a region of the case.

    Args:
        view: how the patch lies.
        first: offset of the first voxel from the patch's centre, (Z, Y, X).
        shape: voxels (Z, Y, X).
    """

    def __init__(self, view: View, first: np.ndarray, shape: Sequence[int]) -> None:
        self.shape = tuple(int(n) for n in shape)
        self._view = view
        self._first = np.asarray(first, dtype=float)
        self._origin = view.matrix @ self._first + view.centre  # case index of the first voxel
        # the axes before this one are only indexed
        self._axis = 1 if view.in_plane else 0
        assert not self._axis or self._origin[0] == round(self._origin[0]), "between two slices"
        self._coordinates = [self._case_index(axis) for axis in range(self._axis, 3)]

    def source_box(self, halo: int) -> tuple[np.ndarray, np.ndarray]:
        """Return start and stop of the region of the case that the frame needs.

        `halo` voxels are added for the interpolation. The region is clipped to the case, but
        never empty, so that there is an edge to repeat.
        """
        view = self._view
        last = self._first + np.asarray(self.shape) - 1
        seen = _corners(self._first, last) @ view.matrix.T + view.centre
        widths = np.array([0 if view.in_plane else halo, halo, halo])
        start = np.floor(seen.min(axis=0) + 1e-6).astype(int) - widths
        stop = np.ceil(seen.max(axis=0) - 1e-6).astype(int) + widths + 1
        start = np.clip(start, 0, np.asarray(view.case_shape) - 1)
        return start, np.clip(stop, start + 1, view.case_shape)

    def inside(self) -> torch.Tensor:
        """Return (1, Z, Y, X) bool: which voxel centres lie within the outer faces of the case."""
        case_shape = self._view.case_shape
        inside = torch.ones(self.shape, dtype=torch.bool)
        for coordinate, n in zip(self._coordinates, case_shape[self._axis :], strict=True):
            inside &= (coordinate >= -0.5) & (coordinate <= n - 0.5)
        if self._axis:
            slices = torch.from_numpy(self._slices())
            inside &= ((slices >= 0) & (slices < case_shape[0]))[:, None, None]
        return inside[None]

    def image(self, region: torch.Tensor, start: Sequence[int], interpolation: str) -> torch.Tensor:
        """Return the (C, Z, Y, X) image, from a (C, ...) region that begins at `start`."""
        images = self._interpolated_axes_last(region, start)
        if interpolation == "cubic":
            sampled = self._cubic(images, start)
        elif interpolation == "shifted_linear":
            coefficients = _shifted_linear_coefficients(images)
            sampled = self._linear(coefficients, start, shift=_SHIFT - 1)
        else:
            sampled = self._linear(images, start)
        return sampled.reshape(-1, *self.shape)

    def labels(self, region: torch.Tensor, start: Sequence[int]) -> torch.Tensor:
        """Return (1, Z, Y, X) labels, from a (1, ...) region that begins at `start`.

        Each voxel gets the label with the largest linearly interpolated share, so no label is
        made that was not there.
        """
        maps = self._interpolated_axes_last(region, start)
        lowest, *others = _present_labels(maps)
        winner = maps.new_full((1, *self.shape), lowest)
        largest, total = torch.zeros(1, *self.shape), torch.zeros(1, *self.shape)
        for first in range(0, len(others), _LABELS_AT_ONCE):
            labels = others[first : first + _LABELS_AT_ONCE]
            shares = torch.cat([(maps == label).float() for label in labels])
            sampled = self._linear(shares, start).view(len(labels), 1, *self.shape)
            for label, share in zip(labels, sampled, strict=True):
                total += share
                winner.masked_fill_(share > largest, label)
                torch.maximum(largest, share, out=largest)
        # shares sum to 1, so that of the lowest label needs no sampling
        return winner.masked_fill_(1 - total >= largest, lowest)

    def _linear(
        self, images: torch.Tensor, start: Sequence[int], shift: float = 0.0
    ) -> torch.Tensor:
        """Return (N, *shape) of (N, *region) by linear interpolation, `shift` indices lower."""
        grid = torch.empty(*self._coordinates[0].shape, len(self._coordinates))
        for i, coordinate in enumerate(self._coordinates):
            axis = self._axis + i
            # grid_sample wants (x, y, z) with the region's faces at -1 and 1
            scale = 2 / images.shape[1 + i]
            index = coordinate.clamp(0, self._view.case_shape[axis] - 1)
            offset = (0.5 - shift - float(start[axis])) * scale - 1
            grid[..., -1 - i] = index.mul_(scale).add_(offset)
        # "border" covers what rounding puts a little outside the region
        return grid_sample(
            images[None], grid[None], mode="bilinear", padding_mode="border", align_corners=False
        )[0]

    def _cubic(self, images: torch.Tensor, start: Sequence[int]) -> torch.Tensor:
        """Return (N, *shape) of (N, *region) by cubic B-splines."""
        axes = slice(self._axis, 3)
        matrix = self._view.matrix[axes, axes]
        offset = (self._origin - np.asarray(start))[axes]
        sampled = [
            ndimage.affine_transform(
                image, matrix, offset, self.shape[axes], order=3, mode="nearest"
            )
            for image in images.numpy()
        ]
        return torch.from_numpy(np.stack(sampled))

    def _interpolated_axes_last(self, region: torch.Tensor, start: Sequence[int]) -> torch.Tensor:
        """Return (N, axes to interpolate): in-plane, the wanted slices join the channels."""
        if self._axis == 0:
            return region
        slices = np.clip(self._slices(), 0, self._view.case_shape[0] - 1) - int(start[0])
        return region[:, torch.from_numpy(slices)].flatten(0, 1)

    def _slices(self) -> np.ndarray:
        return round(self._origin[0]) + np.arange(self.shape[0])

    def _case_index(self, axis: int) -> torch.Tensor:
        """Return where each voxel lies along one axis of the case, over the interpolated axes."""
        sizes = self.shape[self._axis :]
        index = torch.tensor(float(self._origin[axis]))
        for i, n in enumerate(sizes):
            step = float(self._view.matrix[axis, self._axis + i])
            line = torch.arange(n, dtype=torch.float32) * step
            index = index + line.view(-1, *[1] * (len(sizes) - 1 - i))
        return index


def _corners(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    return np.array(list(itertools.product(*zip(low, high, strict=True))))


def _present_labels(maps: torch.Tensor) -> list[int]:
    """Return the labels that occur, rising (a count is much faster than a sort)."""
    lowest = int(maps.min())
    return [lowest + int(i) for i in np.flatnonzero(np.bincount((maps - lowest).numpy().ravel()))]


def _shifted_linear_coefficients(images: torch.Tensor) -> torch.Tensor:
    """Return the coefficients of shifted linear interpolation of `images` (N, ...).

    Interpolating them linearly, `_SHIFT` voxels lower, still passes through every voxel and keeps
    ramps, but hardly blurs (Blu, Thevenaz and Unser, "Linear interpolation revitalized", IEEE TIP
    13(5), 2004). Each axis is one longer: the first coefficient stands before the first voxel.
    """
    decay = -_SHIFT / (1 - _SHIFT)
    for axis in range(1, images.ndim):
        n = images.shape[axis]
        first = images.narrow(axis, 0, 1)
        slope = images.narrow(axis, min(1, n - 1), 1) - first
        coefficients = images / (1 - _SHIFT)
        # 1 / (1 - d z) = (1 + d z)(1 + d^2 z^2)(1 + d^4 z^4)..., beyond z^8 below float32
        for lag in (1, 2, 4, 8):
            factor, before = decay**lag, coefficients
            coefficients = before.clone()
            edge = coefficients.narrow(axis, 0, min(lag, n))
            edge.add_(before.narrow(axis, 0, 1), alpha=factor)
            if lag < n:
                rest = coefficients.narrow(axis, lag, n - lag)
                rest.add_(before.narrow(axis, 0, n - lag), alpha=factor)
        # up to here the first voxel was repeated below itself; let its slope go on instead
        for i in range(min(8, n)):
            coefficients.narrow(axis, i, 1).add_(slope, alpha=_SHIFT * decay**i)
        images = torch.cat((first - (1 - _SHIFT) * slope, coefficients), dim=axis)
    return images
