"""Rigid motion between two images, from points; and what it does to an image's header.

A transform here is ITK's: it maps points of the *fixed* image to points of the *moving* one (LPS,
mm), so that `sitk.Resample(moving, fixed, transform)` shows the moving image where the fixed one
lies. Moving an image needs no interpolation: its origin and direction take the motion.
"""

from __future__ import annotations

import csv
import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk

_MIN_POINTS = 3
_COLLINEAR = 1e-3  # spread across a line, as a share of that along it
_AXES = ("x", "y", "z")
# CSV files of RAS points (nibabel, 3D Slicer's display) turn into ITK's LPS.
_TO_LPS = {"lps": np.array((1.0, 1.0, 1.0)), "ras": np.array((-1.0, -1.0, 1.0))}

Points = dict[str, np.ndarray]


@dataclass(frozen=True)
class PointFit:
    """A rigid fit of points.

    Attributes:
        transform: maps fixed points to moving ones.
        num_points: pairs that were used.
        rms_mm: root mean square distance that is left.
    """

    transform: sitk.Euler3DTransform
    num_points: int
    rms_mm: float


def fit_points(fixed: Mapping[str, np.ndarray], moving: Mapping[str, np.ndarray]) -> PointFit:
    """Return the rigid transform with the least squared distances of points of the same name.

    Horn's closed form by unit quaternions (JOSA A 1987), as ITK's landmark initialiser has it.

    Args:
        fixed: name -> world point (x, y, z), LPS mm.
        moving: likewise, on the moving image; names that only one side has are left out.

    Raises:
        ValueError: if fewer than three pairs are shared, or they lie on a line.
    """
    names = [name for name in fixed if name in moving]
    if len(names) < _MIN_POINTS:
        shown = f" ({', '.join(names)})" if names else ""
        raise ValueError(
            f"a rigid alignment needs at least {_MIN_POINTS} points that both sides have, got "
            f"{len(names)}{shown}."
        )
    sides = [np.array([side[name] for name in names], dtype=float) for side in (fixed, moving)]
    for points, side in zip(sides, ("fixed", "moving"), strict=True):
        along, across, _ = np.linalg.svd(points - points.mean(0), compute_uv=False)
        if across <= _COLLINEAR * along:
            raise ValueError(
                f"the {len(names)} {side} points lie on a line or in one place, which leaves the "
                f"rotation open."
            )
    found = sitk.LandmarkBasedTransformInitializer(
        sitk.VersorRigid3DTransform(), *(points.ravel().tolist() for points in sides)
    )
    transform = rigid_transform(
        np.reshape(sitk.VersorRigid3DTransform(found).GetMatrix(), (3, 3)),
        sides[0].mean(0),
        sides[1].mean(0),
    )
    mapped = np.array([transform.TransformPoint(point) for point in sides[0]])
    rms_mm = float(np.sqrt(((mapped - sides[1]) ** 2).sum(1).mean()))
    return PointFit(transform, len(names), rms_mm)


def rigid_transform(
    rotation: np.ndarray, centre_xyz: np.ndarray, target_xyz: np.ndarray
) -> sitk.Euler3DTransform:
    """Return the transform that turns by `rotation` and takes `centre_xyz` to `target_xyz`.

    Args:
        rotation: (3, 3); its nearest rotation is taken, as ITK refuses rounding.
        centre_xyz: world point, mm.
        target_xyz: world point, mm.
    """
    left, _, right = np.linalg.svd(rotation)
    transform = sitk.Euler3DTransform()
    transform.SetCenter([float(mm) for mm in centre_xyz])
    transform.SetMatrix([float(v) for v in (left @ right).ravel()])
    transform.SetTranslation([float(mm) for mm in np.subtract(target_xyz, centre_xyz)])
    return transform


def moved_header(image: sitk.Image, transform: sitk.Transform) -> sitk.Image:
    """Return a moving image where the fixed one lies: same voxels, new origin and direction.

    Args:
        image: 3-D; left as it is.
        transform: rigid, maps fixed points to moving ones.
    """
    inverse = transform.GetInverse()
    origin_xyz = np.array(inverse.TransformPoint(image.GetOrigin()))
    moved = [inverse.TransformPoint(step) for step in np.add(np.eye(3), image.GetOrigin())]
    rotation = (np.array(moved) - origin_xyz).T
    direction = rotation @ np.reshape(image.GetDirection(), (3, 3))
    left, _, right = np.linalg.svd(direction)  # headers with a hair of shear are refused
    result = sitk.Image(image)
    result.SetOrigin([float(mm) for mm in origin_xyz])
    result.SetDirection([float(v) for v in (left @ right).ravel()])
    return result


def on_fixed_grid(
    image: sitk.Image, fixed: sitk.Image, transform: sitk.Transform, *, is_label: bool = False
) -> sitk.Image:
    """Return a moving image on the fixed image's grid, in its own pixel type.

    Images by a cubic B-spline, rounded and clipped to integer types; labels by the nearest voxel.
    Outside stands the image's minimum, of labels 0. Nothing is smoothed: on a coarser grid this
    aliases.

    Args:
        image: 3-D.
        fixed: where its grid is taken from.
        transform: maps fixed points to moving ones.
        is_label: whether the voxels are labels.
    """
    if is_label:
        return sitk.Resample(image, fixed, transform, sitk.sitkNearestNeighbor, 0)
    values = sitk.Cast(image, sitk.sitkFloat32)
    outside = float(sitk.GetArrayViewFromImage(values).min())
    resampled = sitk.Resample(values, fixed, transform, sitk.sitkBSpline, outside)
    dtype = sitk.GetArrayViewFromImage(image).dtype
    if dtype.kind not in "iu":
        return sitk.Cast(resampled, image.GetPixelID())
    limits = np.iinfo(dtype)
    whole = np.clip(
        np.rint(sitk.GetArrayFromImage(resampled).astype(float)), limits.min, limits.max
    )
    result = sitk.GetImageFromArray(whole.astype(dtype))
    result.CopyInformation(fixed)
    return result


def shared_share(
    fixed: sitk.Image, moving: sitk.Image, transform: sitk.Transform | None = None
) -> float:
    """Return which share of the smaller field of view both images show, from a few thousand points.

    Args:
        fixed: 3-D.
        moving: 3-D.
        transform: maps fixed points to moving ones; None: the world coordinates as they are.
    """
    transform = transform or sitk.Transform(3, sitk.sitkIdentity)
    pairs = [(fixed, moving, transform), (moving, fixed, transform.GetInverse())]
    return max(_covered(image, other, mapping) for image, other, mapping in pairs)


def _covered(image: sitk.Image, other: sitk.Image, mapping: sitk.Transform) -> float:
    """Return which share of a lattice of points in `image` lies in `other`."""
    lattices = [np.linspace(-0.5, n - 0.5, 2 * 12 + 1)[1::2] for n in image.GetSize()]
    inside, count = 0, 0
    for index in itertools.product(*lattices):
        point = mapping.TransformPoint(image.TransformContinuousIndexToPhysicalPoint(index))
        at = np.array(other.TransformPhysicalPointToContinuousIndex(point))
        inside += bool(np.all((at >= -0.5) & (at <= np.array(other.GetSize()) - 0.5)))
        count += 1
    return inside / count


def label_centroids(labels: sitk.Image) -> Points:
    """Return the world point (x, y, z), LPS mm, of the centre of mass of every label but 0."""
    array = sitk.GetArrayViewFromImage(labels)
    points = {}
    for label in np.unique(array):
        if label != 0:
            index_xyz = np.argwhere(array == label).mean(0)[::-1]
            point = labels.TransformContinuousIndexToPhysicalPoint(index_xyz.tolist())
            points[f"{label:g}"] = np.array(point)
    return points


def read_landmarks(file: Path, *, space: str) -> Points:
    """Return the points of a CSV file by name, LPS mm.

    Three columns x, y, z in mm; or a heading that names these columns, and maybe one `name`.
    Without names the number of the row is the name. Lines that begin with `#` are left out.

    Args:
        file: the CSV file.
        space: "lps" (ITK, DICOM) or "ras" (nibabel, NIfTI headers): what its x and y count to.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the space is unknown, or a row does not have three numbers.
    """
    if space not in _TO_LPS:
        raise ValueError(f"unknown space of landmarks '{space}'; known: {', '.join(_TO_LPS)}.")
    if not file.is_file():
        raise FileNotFoundError(f"the landmark file {file} does not exist.")
    text = file.read_text(encoding="utf-8-sig").splitlines()
    rows = [[cell.strip() for cell in row] for row in csv.reader(text) if any(row)]
    rows = [row for row in rows if not row[0].startswith("#")]
    heading = [cell.lower() for cell in rows[0]] if rows else []
    has_heading = set(_AXES) <= set(heading)
    columns = [heading.index(axis) if has_heading else i for i, axis in enumerate(_AXES)]
    name_column = heading.index("name") if has_heading and "name" in heading else None
    points: Points = {}
    for number, row in enumerate(rows[1:] if has_heading else rows, start=1):
        name = str(number) if name_column is None else row[name_column]
        try:
            point_xyz = np.array([float(row[column]) for column in columns])
        except (ValueError, IndexError):
            point_xyz = np.full(3, np.nan)
        if not np.isfinite(point_xyz).all() or (not has_heading and len(row) != len(_AXES)):
            raise ValueError(
                f"point {number} of {file} must be x,y,z in mm, got '{','.join(row)}'; other "
                f"columns need a heading with x, y and z."
            )
        if name in points:
            raise ValueError(f"{file} has two points named '{name}'.")
        points[name] = point_xyz * _TO_LPS[space]
    return points
