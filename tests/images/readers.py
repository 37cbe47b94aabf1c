"""Files of every geometry that the image tests read: no two axes alike, oblique, some flipped."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import SimpleITK as sitk
from nnunetv2.imageio.nibabel_reader_writer import NibabelIO, NibabelIOWithReorient
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO, SimpleITKIOWithReorient
from scipy.spatial.transform import Rotation

VOLUME_READERS = (SimpleITKIO, SimpleITKIOWithReorient, NibabelIO, NibabelIOWithReorient)
SCALES = ((1, 1, 1), (2, 1, 1), (1, 2, 2), (3, 2, 1))
SHAPE = (5, 8, 7)
SPACING = (4.0, 0.75, 0.5)
ORIGIN_XYZ = (10.0, -20.0, 30.5)


def oblique_direction(permuted: bool = False) -> np.ndarray:
    """Return direction cosines: 25 degrees about a skew axis, with axes swapped and flipped."""
    rotation = Rotation.from_rotvec(np.radians(25) * np.array([0.48, -0.6, 0.64])).as_matrix()
    swap = np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    return rotation @ swap if permuted else rotation


def write_volume(
    file: Path, array: np.ndarray, *, direction: np.ndarray | None = None, origin_xyz=ORIGIN_XYZ
) -> Path:
    """Write (Z, Y, X) with ITK and return the file."""
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(SPACING[::-1])
    image.SetOrigin(origin_xyz)
    image.SetDirection((oblique_direction() if direction is None else direction).ravel().tolist())
    sitk.WriteImage(image, str(file), True)
    return file


def itk_world_xyz(file: Path, index_zyx: tuple[float, ...]) -> np.ndarray:
    """Return where ITK sees a continuous index of a file, LPS."""
    image = sitk.ReadImage(str(file))
    return np.array(
        image.TransformContinuousIndexToPhysicalPoint([float(i) for i in index_zyx[::-1]])
    )


def nibabel_world_xyz(file: Path, index_zyx: tuple[float, ...]) -> np.ndarray:
    """Return where nibabel sees a continuous index of a file, turned from RAS into LPS."""
    point = nibabel.load(file).affine @ [*index_zyx[::-1], 1.0]
    return point[:3] * [-1, -1, 1]
