"""Displacement fields as files that ITK reads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import SimpleITK as sitk

from srseg.geometry.grid import Grid
from srseg.images.write import written_beside


def write_displacement(displacement_xyz: np.ndarray, grid: Grid, folder: Path, name: str) -> None:
    """Write `NAME_field.nii.gz`, a displacement field, and `NAME.h5`, the same as a transform.

    `sitk.ReadTransform` reads the latter; resampling the moving scan with it onto the fixed one
    gives the warped image.

    Args:
        displacement_xyz: (Z, Y, X, 3) mm along ITK's axes (LPS), from fixed to moving points.
        grid: of the fixed scan.
        folder: made if needed; files appear in it whole.
        name: of the files.
    """
    field = sitk.GetImageFromArray(displacement_xyz, isVector=True)
    field.SetSpacing([float(mm) for mm in grid.spacing[::-1]])
    field.SetOrigin([float(mm) for mm in grid.origin_xyz])
    field.SetDirection([float(v) for v in grid.direction_xyz])
    with written_beside(folder) as unfinished:
        sitk.WriteImage(field, str(unfinished / f"{name}_field.nii.gz"), useCompression=True)
        transform = sitk.DisplacementFieldTransform(field)  # takes the image: it is empty then
        sitk.WriteTransform(transform, str(unfinished / f"{name}.h5"))
