"""Resampling from one grid onto another where both lie in the world: for real LR/HR pairs.

Two scans of one patient share no voxel faces, so their grids meet in world coordinates. Everything
else in srseg moves between an LR grid and its own refinement and needs no world at all.
"""

from __future__ import annotations

import numpy as np
import SimpleITK as sitk
from scipy.fft import dct, idct

from srseg.geometry.grid import Grid

_INTERPOLATORS = {"bspline": sitk.sitkBSpline, "linear": sitk.sitkLinear, "label": sitk.sitkLinear}
_FWHM_OF_SIGMA = 2 * np.sqrt(2 * np.log(2))


def resample_to_grid(
    image: np.ndarray, grid_from: Grid, grid_to: Grid, *, interpolation: str
) -> tuple[np.ndarray, np.ndarray]:
    """Return an image on another grid, and which of that grid's voxels lie inside the image.

    Images are smoothed first along axes on which `grid_to` is coarser (a Gaussian that brings a
    voxel-wide point spread to the new voxel's width), so that nothing aliases. Labels are
    interpolated one by one linearly, and the largest wins: shapes stay smooth on oblique grids.

    Args:
        image: (C, Z, Y, X) on `grid_from`.
        grid_from: where its voxels lie.
        grid_to: where they are wanted.
        interpolation: "bspline" (cubic) or "linear" for images, "label" for label maps.

    Returns:
        The array (C, Z, Y, X) on `grid_to`, float32 (labels: in their own dtype), and a bool mask
        (Z, Y, X): True where a voxel's centre lies in the field of view of `grid_from`, that is
        between its outer voxel *faces*. Outside stands the channel's minimum (labels: 0).

    Raises:
        ValueError: if the interpolation is unknown or the image is not on `grid_from`.
    """
    if interpolation not in _INTERPOLATORS:
        known = ", ".join(sorted(_INTERPOLATORS))
        raise ValueError(f"unknown interpolation '{interpolation}'; known: {known}.")
    if image.ndim != 4 or image.shape[1:] != grid_from.shape:
        raise ValueError(
            f"an image of shape {image.shape} is not (C, Z, Y, X) on a grid of {grid_from.shape}."
        )
    inside = inside_field_of_view(grid_from, grid_to)
    resample = _resampled_labels if interpolation == "label" else _resampled_intensities
    channels = [resample(c, grid_from, grid_to, _INTERPOLATORS[interpolation]) for c in image]
    result = np.stack(channels)
    for channel, source in zip(result, image, strict=True):
        channel[~inside] = 0 if interpolation == "label" else source.min()
    return result, inside


def inside_field_of_view(grid_from: Grid, grid_to: Grid) -> np.ndarray:
    """Return (Z, Y, X) bool: which voxel centres of `grid_to` lie inside `grid_from`'s faces."""
    zero = np.asarray(grid_from.index_of(grid_to.world_xyz((0, 0, 0))))
    inside = np.ones(grid_to.shape, dtype=bool)
    steps = [
        np.asarray(grid_from.index_of(grid_to.world_xyz(np.eye(3)[axis]))) - zero
        for axis in range(3)
    ]
    ramps = np.ogrid[tuple(slice(n) for n in grid_to.shape)]
    for axis, size in enumerate(grid_from.shape):
        index = zero[axis] + sum(step[axis] * ramp for step, ramp in zip(steps, ramps, strict=True))
        # A hair of room: faces that coincide must not fall to rounding.
        inside &= (index >= -0.5 - 1e-6) & (index <= size - 0.5 + 1e-6)
    return inside


def overlap_fraction(grid: Grid, other: Grid) -> float:
    """Return the fraction of `grid`'s voxels whose centre lies in the field of view of `other`."""
    return float(inside_field_of_view(other, grid).mean())


def _resampled_intensities(
    channel: np.ndarray, grid_from: Grid, grid_to: Grid, interpolator: int
) -> np.ndarray:
    channel = channel.astype(np.float32, copy=False)
    for axis, sigma in enumerate(_smoothing_voxels(grid_from, grid_to)):
        if sigma:
            channel = _smoothed(channel, axis, sigma)
    return _resampled(channel, grid_from, grid_to, interpolator)


def _smoothed(channel: np.ndarray, axis: int, sigma: float) -> np.ndarray:
    """Return `channel` after a Gaussian of `sigma` voxels along an axis, mirrored at the faces.

    By its transfer function: at these sigmas, below half a voxel, a Gaussian sampled at the voxels
    would hardly smooth.
    """
    size = channel.shape[axis]
    along = np.reshape(np.arange(size), [-1 if a == axis else 1 for a in range(3)])
    transfer = np.exp(-((np.pi * sigma * along / size) ** 2) / 2).astype(channel.dtype)
    return idct(dct(channel, axis=axis) * transfer, axis=axis)


def _resampled_labels(
    labels: np.ndarray, grid_from: Grid, grid_to: Grid, interpolator: int
) -> np.ndarray:
    winner = np.zeros(grid_to.shape, dtype=labels.dtype)
    best = np.zeros(grid_to.shape, dtype=np.float32)
    for label in np.unique(labels):
        share = _resampled((labels == label).astype(np.float32), grid_from, grid_to, interpolator)
        wins = share > best
        winner[wins] = label
        best[wins] = share[wins]
    return winner


def _resampled(
    channel: np.ndarray, grid_from: Grid, grid_to: Grid, interpolator: int
) -> np.ndarray:
    # One voxel of edge all round: ITK takes points on the outer faces, by rounding, for outside.
    edged = Grid(
        shape=tuple(n + 2 for n in grid_from.shape),
        spacing=grid_from.spacing,
        origin_xyz=grid_from.world_xyz((-1, -1, -1)),
        direction_xyz=grid_from.direction_xyz,
    )
    image = _itk_image(np.pad(channel, 1, mode="edge"), edged)
    reference = sitk.Image([int(n) for n in grid_to.shape[::-1]], sitk.sitkUInt8)
    _set_geometry(reference, grid_to)
    resampled = sitk.Resample(image, reference, sitk.Transform(), interpolator, 0.0)
    return sitk.GetArrayFromImage(resampled)


def _itk_image(channel: np.ndarray, grid: Grid) -> sitk.Image:
    image = sitk.GetImageFromArray(channel)
    _set_geometry(image, grid)
    return image


def _set_geometry(image: sitk.Image, grid: Grid) -> None:
    image.SetSpacing([float(mm) for mm in grid.spacing[::-1]])
    image.SetOrigin([float(mm) for mm in grid.origin_xyz])
    image.SetDirection([float(v) for v in grid.direction_xyz])


def _smoothing_voxels(grid_from: Grid, grid_to: Grid) -> list[float]:
    """Return the Gaussian's sigma along each axis of `grid_from`, 0 where `grid_to` is finer."""
    cosines_xyz = grid_from.rotation_xyz.T @ grid_to.rotation_xyz
    to_spacing_xyz = np.asarray(grid_to.spacing[::-1])
    seen_mm = np.sqrt((cosines_xyz**2) @ to_spacing_xyz**2)[::-1]  # along grid_from's (Z, Y, X)
    sigma = []
    for wanted_mm, here_mm in zip(seen_mm, grid_from.spacing, strict=True):
        added = max(0.0, wanted_mm**2 - here_mm**2)
        is_coarser = wanted_mm > 1.01 * here_mm
        sigma.append(float(np.sqrt(added) / _FWHM_OF_SIGMA / here_mm) if is_coarser else 0.0)
    return sigma
