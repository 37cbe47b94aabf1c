"""Resampling in the world: ramps of world coordinates stay ramps, labels stay half-spaces."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from srseg.geometry.grid import Grid
from srseg.images.world import inside_field_of_view, overlap_fraction, resample_to_grid
from tests.images.readers import oblique_direction

FROM = Grid((17, 20, 23), (1.5, 0.75, 1.0), (3.0, -7.0, 11.0), tuple(oblique_direction().ravel()))


def turned_grid(angle: float = 20, spacing=(1.1, 0.6, 0.9)) -> Grid:
    """Return a grid with the same centre as FROM, turned about it."""
    rotation = Rotation.from_rotvec(np.radians(angle) * np.array([0.6, 0.0, 0.8])).as_matrix()
    direction = rotation @ FROM.rotation_xyz
    grid = Grid((15, 22, 18), spacing, (0.0, 0.0, 0.0), tuple(direction.ravel()))
    middle = np.subtract(FROM.world_xyz((8, 9.5, 11)), grid.world_xyz((7, 10.5, 8.5)))
    return replace(grid, origin_xyz=tuple(middle))


def deep_inside(grid: Grid) -> np.ndarray:
    """Return which voxels of `grid` lie well inside FROM, away from edge effects."""
    core = Grid(
        tuple(n - 6 for n in FROM.shape),
        FROM.spacing,
        FROM.world_xyz((3, 3, 3)),
        FROM.direction_xyz,
    )
    return inside_field_of_view(core, grid)


@pytest.mark.parametrize("interpolation", ["linear", "bspline"])
@pytest.mark.parametrize(
    "grid_to", [turned_grid(), FROM.refined((3, 2, 1))], ids=["turned", "fine"]
)
def test_world_ramp(interpolation, grid_to):
    ramp = FROM.world_coordinates().astype(np.float32)
    result, _ = resample_to_grid(ramp, FROM, grid_to, interpolation=interpolation)
    inner = deep_inside(grid_to)
    assert inner.sum() > 200
    tolerance = 1e-3 if interpolation == "linear" else 0.02  # splines of a ramp bend at the edges
    np.testing.assert_allclose(
        result[:, inner], grid_to.world_coordinates()[:, inner], atol=tolerance
    )


def test_half_space_of_labels():
    """A plane between two labels, oblique to both grids, stays where it is; 7 and 2 are labels."""
    normal_xyz = np.array([0.48, 0.6, 0.64])
    centre_xyz = FROM.world_xyz((8, 9.5, 11))

    def signed_mm(grid):
        coordinates = grid.world_coordinates()
        return np.tensordot(normal_xyz, coordinates, 1) - normal_xyz @ centre_xyz

    labels = np.where(signed_mm(FROM) > 0, 7, 2).astype(np.uint8)[None]
    grid_to = turned_grid()
    result, inside = resample_to_grid(labels, FROM, grid_to, interpolation="label")
    assert result.dtype == np.uint8
    assert set(np.unique(result[0][inside])) == {2, 7}
    clear = deep_inside(grid_to) & (np.abs(signed_mm(grid_to)) > 1.0)
    expected = np.where(signed_mm(grid_to) > 0, 7, 2)
    np.testing.assert_array_equal(result[0][clear], expected[clear])
    assert not result[0][~inside].any()


def test_labels_are_not_interpolated_as_numbers():
    """Between 1 and 3 there is no 2."""
    grid = Grid((1, 1, 6), (1.0, 1.0, 1.0))
    labels = np.array([1, 1, 1, 3, 3, 3], np.int16).reshape(1, 1, 1, 6)
    result, _ = resample_to_grid(labels, grid, grid.refined((1, 1, 3)), interpolation="label")
    assert result.ravel().tolist() == [1] * 9 + [3] * 9


def test_refining_onto_the_own_grid_changes_nothing():
    image = np.random.default_rng(0).normal(size=(2, *FROM.shape)).astype(np.float32)
    for interpolation in ("linear", "bspline"):
        result, inside = resample_to_grid(image, FROM, FROM, interpolation=interpolation)
        np.testing.assert_allclose(result, image, atol=2e-4)
        assert inside.all()


def test_inside_reaches_to_the_faces_and_outside_stands_the_minimum():
    grid = Grid((2, 2, 4), (2.0, 1.0, 1.0))
    fine = grid.refined((1, 1, 2))
    shifted = replace(fine, origin_xyz=(fine.origin_xyz[0] + 1.0, *fine.origin_xyz[1:]))
    image = np.arange(16, dtype=np.float32).reshape(1, 2, 2, 4) + 5
    result, inside = resample_to_grid(image, grid, shifted, interpolation="linear")
    assert inside.tolist() == [[[True] * 6 + [False] * 2] * 2] * 2
    assert (result[0][~inside] == 5).all()
    assert overlap_fraction(shifted, grid) == 0.75
    assert overlap_fraction(grid, shifted) == 0.75
    assert overlap_fraction(grid, replace(grid, origin_xyz=(100.0, 0.0, 0.0))) == 0


def test_inside_agrees_with_the_grid_s_own_index():
    grid_to = turned_grid(35)
    inside = inside_field_of_view(FROM, grid_to)
    assert 0 < inside.sum() < inside.size
    for index in np.ndindex(*grid_to.shape):
        there = FROM.index_of(grid_to.world_xyz(index))
        expected = all(-0.5 <= i <= n - 0.5 for i, n in zip(there, FROM.shape, strict=True))
        assert inside[index] == expected


def test_a_coarser_grid_gets_no_aliases():
    """Stripes one voxel wide turn grey on a grid 1.4 times coarser along them, and only there."""
    stripes = np.broadcast_to((-1.0) ** np.arange(60), (12, 14, 60))[None].astype(np.float32)
    grid = Grid((12, 14, 60), (1.0, 1.0, 1.0))
    coarse = Grid((12, 14, 40), (1.0, 1.0, 1.4))
    result, _ = resample_to_grid(stripes, grid, coarse, interpolation="bspline")
    assert 0.3 < np.abs(result[..., 2:-2]).max() < 0.5  # added FWHM 0.98: transfer 0.43
    same, _ = resample_to_grid(stripes, grid, grid, interpolation="bspline")
    np.testing.assert_allclose(same, stripes, atol=1e-3)
    across, _ = resample_to_grid(
        stripes, grid, Grid((8, 14, 60), (1.4, 1.0, 1.0)), interpolation="linear"
    )
    np.testing.assert_allclose(np.abs(across), 1, atol=1e-3)


def test_unknown_interpolation():
    with pytest.raises(ValueError, match="unknown interpolation 'cubic'; known: bspline, label"):
        resample_to_grid(np.zeros((1, *FROM.shape)), FROM, FROM, interpolation="cubic")


def test_image_must_lie_on_its_grid():
    with pytest.raises(ValueError, match=r"\(1, 2, 3, 4\) is not \(C, Z, Y, X\) on a grid of"):
        resample_to_grid(np.zeros((1, 2, 3, 4)), FROM, FROM, interpolation="linear")
