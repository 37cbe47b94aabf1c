"""Where the voxels of a volume lie in the world.

Shapes, spacings (mm), indices and scales are (Z, Y, X), the order of our arrays.
World points (mm) keep ITK's (x, y, z) order and say so in their name: `_xyz`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

IDENTITY_DIRECTION_XYZ = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)


def checked_scale(scale: Sequence[int | float]) -> tuple[int, ...]:
    """Return `scale` as plain ints.

    Raises:
        ValueError: if an entry is not a whole number >= 1.
    """
    if any(s < 1 or s != int(s) for s in scale):
        raise ValueError(f"scale must be whole numbers >= 1 per axis, got {tuple(scale)}.")
    return tuple(int(s) for s in scale)


@dataclass(frozen=True)
class Grid:
    """A regular voxel grid; `origin_xyz` is the centre of voxel (0, 0, 0).

    Attributes:
        shape: voxels (Z, Y, X).
        spacing: mm (Z, Y, X).
        origin_xyz: world point of the first voxel's centre, mm.
        direction_xyz: ITK's direction cosines, row by row (9 numbers).
    """

    shape: tuple[int, int, int]
    spacing: tuple[float, float, float]
    origin_xyz: tuple[float, float, float] = (0.0, 0.0, 0.0)
    direction_xyz: tuple[float, ...] = IDENTITY_DIRECTION_XYZ

    @property
    def rotation_xyz(self) -> np.ndarray:
        """The direction cosines as a (3, 3) matrix."""
        return np.reshape(np.asarray(self.direction_xyz, dtype=float), (3, 3))

    def world_xyz(self, index: Sequence[float]) -> tuple[float, float, float]:
        """Return the world point (mm) of a continuous (Z, Y, X) index."""
        offset_xyz = np.multiply(index, self.spacing)[::-1]
        x, y, z = self.rotation_xyz @ offset_xyz + np.asarray(self.origin_xyz, dtype=float)
        return float(x), float(y), float(z)

    def index_of(self, world_xyz: Sequence[float]) -> tuple[float, float, float]:
        """Return the continuous (Z, Y, X) index of a world point (mm)."""
        relative_xyz = np.asarray(world_xyz, dtype=float) - np.asarray(self.origin_xyz, dtype=float)
        z, y, x = np.linalg.solve(self.rotation_xyz, relative_xyz)[::-1] / np.asarray(self.spacing)
        return float(z), float(y), float(x)

    def world_coordinates(self) -> np.ndarray:
        """Return (3, Z, Y, X) float64: the world x, y and z of every voxel centre."""
        index = np.stack(np.meshgrid(*(np.arange(n) for n in self.shape), indexing="ij"))
        offset_xyz = (index * np.reshape(self.spacing, (3, 1, 1, 1)))[::-1]
        rotated = np.tensordot(self.rotation_xyz, offset_xyz, axes=1)
        return rotated + np.reshape(np.asarray(self.origin_xyz, dtype=float), (3, 1, 1, 1))

    def refined(self, scale: Sequence[int]) -> Grid:
        """Return the HR grid: this LR grid with every voxel split into `scale` equal parts.

        Voxel faces stay, so the first centre moves by (1 / scale - 1) / 2 LR voxels: the grid
        that `torch.nn.functional.interpolate(..., align_corners=False)` samples.

        Raises:
            ValueError: if `scale` has an entry that is not a whole number >= 1.
        """
        scale = checked_scale(scale)
        return replace(
            self,
            shape=tuple(n * s for n, s in zip(self.shape, scale, strict=True)),
            spacing=tuple(mm / s for mm, s in zip(self.spacing, scale, strict=True)),
            origin_xyz=self.world_xyz([(1 / s - 1) / 2 for s in scale]),
        )

    def coarsened(self, scale: Sequence[int]) -> Grid:
        """Return the LR grid whose refinement by `scale` is this grid.

        Raises:
            ValueError: if `scale` is not whole numbers >= 1 or does not divide the shape.
        """
        scale = checked_scale(scale)
        if any(n % s for n, s in zip(self.shape, scale, strict=True)):
            raise ValueError(f"scale {scale} does not divide the shape {self.shape}; pad it first.")
        return replace(
            self,
            shape=tuple(n // s for n, s in zip(self.shape, scale, strict=True)),
            spacing=tuple(mm * s for mm, s in zip(self.spacing, scale, strict=True)),
            origin_xyz=self.world_xyz([(s - 1) / 2 for s in scale]),
        )


def pad_to_multiple(array: np.ndarray, scale: Sequence[int]) -> np.ndarray:
    """Return `array` edge-padded at the high end until `scale` divides its last axes.

    Args:
        array: (..., Z, Y, X).
        scale: one whole number per padded axis, the last `len(scale)` axes.
    """
    scale = checked_scale(scale)
    missing = [-n % s for n, s in zip(array.shape[-len(scale) :], scale, strict=True)]
    if not any(missing):
        return array
    leading = [(0, 0)] * (array.ndim - len(scale))
    return np.pad(array, leading + [(0, m) for m in missing], mode="edge")
