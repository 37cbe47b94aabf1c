"""A written displacement field moves points in ITK as it says, on an oblique grid."""

import numpy as np
import SimpleITK as sitk

from srseg.geometry.grid import Grid
from srseg.images.displacement import write_displacement

SHAPE = (4, 6, 5)


def oblique_grid() -> Grid:
    turn = sitk.Euler3DTransform()
    turn.SetRotation(0.2, -0.1, 0.3)
    return Grid(SHAPE, (3.0, 1.5, 0.8), (10.0, -20.0, 5.0), tuple(turn.GetMatrix()))


def point_of(grid: Grid, index: tuple[int, int, int]) -> np.ndarray:
    direction = np.reshape(grid.direction_xyz, (3, 3))
    offset = np.array(index[::-1]) * grid.spacing[::-1]
    return np.array(grid.origin_xyz) + direction @ offset


def test_field_and_transform_move_a_voxel_s_point_by_its_vector(tmp_path):
    grid = oblique_grid()
    field = np.random.default_rng(0).normal(size=(*SHAPE, 3))
    write_displacement(field, grid, tmp_path / "new", "case")
    transform = sitk.ReadTransform(str(tmp_path / "new/case.h5"))
    image = sitk.ReadImage(str(tmp_path / "new/case_field.nii.gz"), sitk.sitkVectorFloat64)
    again = sitk.DisplacementFieldTransform(image)
    for index in ((0, 0, 0), (3, 5, 4), (1, 4, 2)):
        point = point_of(grid, index)
        expected = point + field[index]
        np.testing.assert_allclose(transform.TransformPoint(point), expected, atol=1e-4)
        np.testing.assert_allclose(again.TransformPoint(point), expected, atol=1e-4)
    assert sorted(file.name for file in (tmp_path / "new").iterdir()) == [
        "case.h5",
        "case_field.nii.gz",
    ]
