"""One smooth body in the world, seen by two scanners, one of them moved rigidly: no interpolation.

No two axes are alike, both grids are oblique.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import SimpleITK as sitk

FIXED = ((46, 41, 23), (1.3, 1.5, 2.6), (10, 20, -15), (0.0, 0.0, 0.0))  # x, y, z
MOVING = ((40, 52, 31), (1.6, 1.2, 2.1), (-5, 12, 30), (2.0, 1.0, -3.0))
_DRAWN = np.random.default_rng(0)
_BLOBS = [
    (_DRAWN.uniform(-28, 28, 3), _DRAWN.uniform(0.4, 1), _DRAWN.uniform(5, 10)) for _ in range(14)
]  # middle, height, width


def rotation(angles_deg: Sequence[float]) -> np.ndarray:
    """Return the (3, 3) matrix of turns round x, y and z, one after the other."""
    matrix = np.eye(3)
    for axis, angle in enumerate(np.radians(angles_deg)):
        i, j = (axis + 1) % 3, (axis + 2) % 3
        turn = np.eye(3)
        turn[[i, j], [i, j]] = np.cos(angle)
        turn[i, j], turn[j, i] = -np.sin(angle), np.sin(angle)
        matrix = turn @ matrix
    return matrix


class Motion:
    """Where points (N, 3) of the fixed scan lie in the moving one; `centre_xyz` is turned about."""

    def __init__(
        self, angles_deg: Sequence[float], shift_mm: Sequence[float], centre_xyz=(3.0, -2.0, 1.0)
    ) -> None:
        self.rotation = rotation(angles_deg)
        self.shift_mm, self.centre_xyz = np.asarray(shift_mm, float), np.asarray(centre_xyz, float)

    def __call__(self, points: np.ndarray) -> np.ndarray:
        return (points - self.centre_xyz) @ self.rotation.T + self.centre_xyz + self.shift_mm

    def back(self, points: np.ndarray) -> np.ndarray:
        return (points - self.shift_mm - self.centre_xyz) @ self.rotation + self.centre_xyz


def empty(size, spacing, angles_deg, middle_xyz) -> sitk.Image:
    """Return an image of zeros whose middle lies at `middle_xyz`."""
    direction = rotation(angles_deg)
    half = direction @ (np.array(spacing) * (np.array(size) - 1) / 2)
    image = sitk.Image(list(size), sitk.sitkFloat32)
    image.SetSpacing(spacing)
    image.SetDirection(direction.ravel().tolist())
    image.SetOrigin((np.array(middle_xyz) - half).tolist())
    return image


def voxel_points(image: sitk.Image) -> np.ndarray:
    """Return (x, y, z, 3): the world point of every voxel."""
    index = np.stack(np.meshgrid(*map(np.arange, image.GetSize()), indexing="ij"), -1)
    direction = np.reshape(image.GetDirection(), (3, 3))
    return (index * image.GetSpacing()) @ direction.T + np.array(image.GetOrigin())


def filled(image: sitk.Image, values: np.ndarray) -> sitk.Image:
    """Return an image of `values` (x, y, z) where `image` lies."""
    result = sitk.GetImageFromArray(np.ascontiguousarray(values.T))
    result.CopyInformation(image)
    return result


def body(points: np.ndarray) -> np.ndarray:
    """Return intensities (...) of world points (..., 3)."""
    return sum(
        height * np.exp(-((points - middle) ** 2).sum(-1) / (2 * width**2))
        for middle, height, width in _BLOBS
    )


def scans(
    motion: Motion,
    contrast: Callable[[np.ndarray], np.ndarray] = lambda values: values,
    *,
    moved_by_mm: Sequence[float] = (0.0, 0.0, 0.0),
) -> tuple[sitk.Image, sitk.Image]:
    """Return the fixed scan and the moving one, which has another `contrast`.

    The moving scan's field of view lies `moved_by_mm` further, as where it follows the body.
    """
    size, spacing, angles_deg, middle_xyz = MOVING
    fixed = empty(*FIXED)
    moving = empty(size, spacing, angles_deg, np.add(middle_xyz, moved_by_mm))
    return (
        filled(fixed, body(voxel_points(fixed)).astype(np.float32)),
        filled(moving, contrast(body(motion.back(voxel_points(moving)))).astype(np.float32)),
    )


def errors_mm(transform: sitk.Transform, motion: Motion) -> np.ndarray:
    """Return how far 200 mapped points of the body are from where they belong."""
    points = np.random.default_rng(1).uniform(-25, 25, (200, 3))
    mapped = np.array([transform.TransformPoint(point) for point in points])
    return np.linalg.norm(mapped - motion(points), axis=1)
