"""The geometry inside a reader's properties, on the coarse and on the fine grid.

nnU-Net's readers return `properties` with the spacing in the array's order (Z, Y, X) and, below a
key of their own, what their writer needs: ITK's spacing, origin and direction (`sitk_stuff`), or
affine matrices (`nibabel_stuff`). Splitting every voxel into `scale` parts keeps the voxel *faces*,
so the centre of the first voxel moves by half the difference of the voxel sizes in both forms.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any

import nibabel
import numpy as np

from srseg.geometry.grid import Grid, checked_scale

Properties = dict[str, Any]

_CROP_SHAPES = ("shape_before_cropping", "shape_after_cropping_and_before_resampling")
_CROP_BOX = "bbox_used_for_cropping"
# nibabel's world is RAS (x to the right), ITK's is LPS (x to the left).
_LPS_FROM_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


def refine_properties(properties: Mapping[str, Any], scale: Sequence[int]) -> Properties:
    """Return the properties of the image whose voxels are `scale` times finer.

    Args:
        properties: what a reader returned; left as it is.
        scale: whole numbers (Z, Y, X) in the reader's order.

    Raises:
        ValueError: if `scale` has an entry that is not a whole number >= 1.
    """
    return _with_voxels_times(properties, [1 / s for s in checked_scale(scale)])


def coarsen_properties(properties: Mapping[str, Any], scale: Sequence[int]) -> Properties:
    """Return the properties of the image whose voxels are `scale` times coarser.

    The inverse of `refine_properties`.

    Raises:
        ValueError: if `scale` has an entry that is not a whole number >= 1.
    """
    return _with_voxels_times(properties, [float(s) for s in checked_scale(scale)])


def upscale_properties(
    properties: Mapping[str, Any], scale_3d: Sequence[int], transpose_backward: Sequence[int]
) -> Properties:
    """Return the properties of a preprocessed image `scale_3d` times finer over the same region.

    The three crop entries, which nnU-Net keeps in plan order, are multiplied by `scale_3d`; the
    geometry, which the readers keep in their own order, is refined.

    Args:
        properties: of a preprocessed case; left as they are.
        scale_3d: whole numbers in plan order, always three.
        transpose_backward: the plans' axis order from plan to reader.
    """
    scale_3d = checked_scale(scale_3d)
    fine = refine_properties(properties, [scale_3d[axis] for axis in transpose_backward])
    for key in _CROP_SHAPES:
        if key in fine:
            fine[key] = tuple(int(n) * s for n, s in zip(fine[key], scale_3d, strict=True))
    if _CROP_BOX in fine:
        boxes = zip(fine[_CROP_BOX], scale_3d, strict=True)
        fine[_CROP_BOX] = [[int(start) * s, int(stop) * s] for (start, stop), s in boxes]
    return fine


def grid_of(properties: Mapping[str, Any], shape: Sequence[int]) -> Grid | None:
    """Return where the voxels of an image lie, or None for formats without geometry (PNG, TIFF).

    Args:
        properties: what a reader returned.
        shape: of its array, the last three axes (Z, Y, X) are taken.

    Returns:
        The grid in ITK's world (LPS) whichever the reader; a 2-D file lies in the plane z = 0.
    """
    shape = tuple(int(n) for n in shape[-3:])
    if "sitk_stuff" in properties:
        return _grid_from_itk(properties, shape)
    if "nibabel_stuff" in properties:
        return _grid_from_affine(_array_affine(properties["nibabel_stuff"]), shape)
    return None


def _with_voxels_times(properties: Mapping[str, Any], factor: Sequence[float]) -> Properties:
    """Return a copy of `properties` with voxels `factor` times as large, faces staying."""
    out = deepcopy(dict(properties))
    out["spacing"] = [float(mm) * f for mm, f in zip(properties["spacing"], factor, strict=True)]
    factor_xyz = np.asarray(factor[::-1], dtype=float)
    if "sitk_stuff" in out:
        _scale_itk(out["sitk_stuff"], factor_xyz)
    if "nibabel_stuff" in out:
        _scale_affines(out["nibabel_stuff"], factor_xyz)
    return out


def _scale_itk(itk: dict[str, Any], factor_xyz: np.ndarray) -> None:
    old_xyz = np.asarray(itk["spacing"], dtype=float)
    ndim = len(old_xyz)
    # 2-D files have no z; of 4-D files (channels as the last ITK axis) only x, y, z are scaled.
    factors = np.ones(ndim)
    factors[: min(ndim, 3)] = factor_xyz[: min(ndim, 3)]
    new_xyz = old_xyz * factors
    rotation = np.reshape(np.asarray(itk["direction"], dtype=float), (ndim, ndim))
    origin = np.asarray(itk["origin"], dtype=float) + rotation @ ((new_xyz - old_xyz) / 2)
    itk["spacing"] = tuple(float(mm) for mm in new_xyz)
    itk["origin"] = tuple(float(mm) for mm in origin)


def _scale_affines(nib: dict[str, Any], factor_xyz: np.ndarray) -> None:
    if "reoriented_affine" not in nib:
        nib["original_affine"] = _scaled_affine(nib["original_affine"], factor_xyz)
        return
    # The array, and so the factors, follow the reoriented axes; the file keeps its own order, so
    # each of the file's axes takes the factor of the axis that it was turned into.
    orientation = nibabel.orientations.io_orientation(nib["original_affine"])
    file_factor_xyz = factor_xyz[orientation[:, 0].astype(int)]
    nib["original_affine"] = _scaled_affine(nib["original_affine"], file_factor_xyz)
    nib["reoriented_affine"] = _scaled_affine(nib["reoriented_affine"], factor_xyz)


def _scaled_affine(affine: np.ndarray, factor_xyz: np.ndarray) -> np.ndarray:
    new_index_to_old = np.eye(4)
    new_index_to_old[:3, :3] = np.diag(factor_xyz)
    new_index_to_old[:3, 3] = (factor_xyz - 1) / 2
    return np.asarray(affine, dtype=float) @ new_index_to_old


def _array_affine(nib: Mapping[str, Any]) -> np.ndarray:
    """Return the affine of the array that the reader returned."""
    return np.asarray(nib.get("reoriented_affine", nib["original_affine"]), dtype=float)


def _grid_from_itk(properties: Mapping[str, Any], shape: tuple[int, ...]) -> Grid:
    itk = properties["sitk_stuff"]
    ndim = len(itk["spacing"])
    used = min(ndim, 3)
    rotation = np.eye(3)
    rotation[:used, :used] = np.reshape(itk["direction"], (ndim, ndim))[:used, :used]
    origin_xyz = np.zeros(3)
    origin_xyz[:used] = itk["origin"][:used]
    return Grid(
        shape=shape,
        spacing=tuple(float(mm) for mm in properties["spacing"]),
        origin_xyz=tuple(float(mm) for mm in origin_xyz),
        direction_xyz=tuple(float(v) for v in rotation.ravel()),
    )


def _grid_from_affine(affine_ras: np.ndarray, shape: tuple[int, ...]) -> Grid:
    affine = _LPS_FROM_RAS @ affine_ras
    spacing_xyz = np.linalg.norm(affine[:3, :3], axis=0)
    return Grid(
        shape=shape,
        spacing=tuple(float(mm) for mm in spacing_xyz[::-1]),
        origin_xyz=tuple(float(mm) for mm in affine[:3, 3]),
        direction_xyz=tuple(float(v) for v in (affine[:3, :3] / spacing_xyz).ravel()),
    )
