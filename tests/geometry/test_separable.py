"""Separable resampling keeps places and constants, and its transpose is its adjoint."""

import pytest
import torch
from torch.nn.functional import interpolate

from srseg.geometry.grid import Grid
from srseg.geometry.separable import (
    apply_separable,
    box_read,
    interpolation_matrix,
    resample,
    resample_box,
)

GRID = Grid((6, 9, 7), (4.0, 0.7, 0.5), (10.0, -20.0, 30.0))
KINDS = ["nearest", "linear", "cubic"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sizes", [(7, 14), (7, 21), (9, 5), (5, 8), (12, 4), (1, 3)])
def test_constant_stays_constant(kind, sizes):
    matrix = interpolation_matrix(*sizes, kind=kind)
    torch.testing.assert_close(matrix.sum(1), torch.ones(sizes[1], dtype=torch.float64))


@pytest.mark.parametrize("sizes", [(7, 14), (7, 21), (5, 8), (9, 9)])
def test_linear_equals_interpolate(sizes):
    signal = torch.rand(1, 1, sizes[0], dtype=torch.float64)
    expected = interpolate(signal, size=sizes[1], mode="linear", align_corners=False)
    torch.testing.assert_close(resample(signal, (sizes[1],), kind="linear"), expected)


def test_antialiased_downsampling_equals_the_area_mean_of_a_ramp():
    ramp = torch.arange(24, dtype=torch.float64)[None]
    coarse = resample(ramp, (8,), kind="linear")
    torch.testing.assert_close(
        coarse[0, 2:-2], torch.arange(8.0, dtype=torch.float64)[2:-2] * 3 + 1
    )


def test_downsampling_without_antialiasing_keeps_the_highest_frequency():
    wave = torch.cos(torch.pi * torch.arange(24, dtype=torch.float64))[None]
    blurred = resample(wave, (8,), kind="linear", antialias=True)[0, 2:-2].abs().max()
    aliased = resample(wave, (8,), kind="linear", antialias=False)[0, 2:-2].abs().max()
    assert blurred < 0.2 < 0.9 < aliased


@pytest.mark.parametrize("kind", ["linear", "cubic"])
@pytest.mark.parametrize("scale", [(2, 1, 3), (1, 2, 2), (3, 2, 1)])
def test_world_ramp_stays_a_world_ramp(kind, scale):
    hr_grid = GRID.refined(scale)
    actual = resample(torch.from_numpy(GRID.world_coordinates()), hr_grid.shape, kind=kind)
    inner = (slice(None), *(slice(2 * s, -2 * s) for s in scale))
    torch.testing.assert_close(actual[inner], torch.from_numpy(hr_grid.world_coordinates())[inner])


@pytest.mark.parametrize("kind", ["linear", "cubic"])
@pytest.mark.parametrize("sizes", [(38, 29), (35, 16), (40, 9)])
def test_a_ramp_stays_a_ramp_when_an_axis_shrinks(kind, sizes):
    n_in, n_out = sizes
    ramp = torch.arange(n_in, dtype=torch.float64)
    expected = (torch.arange(n_out, dtype=torch.float64) + 0.5) * n_in / n_out - 0.5
    torch.testing.assert_close(resample(ramp, (n_out,), kind=kind)[3:-3], expected[3:-3])


def test_nearest_refinement_repeats_voxels():
    image = torch.rand(2, 3, 5, 4)
    expected = image.repeat_interleave(2, 1).repeat_interleave(3, 3)
    torch.testing.assert_close(resample(image, (6, 5, 12), kind="nearest"), expected)


def test_order_of_axes_and_leading_axes_do_not_matter():
    tensor = torch.rand(2, 3, 5, 7, 6, dtype=torch.float64)
    a, b = torch.rand(4, 5, dtype=torch.float64), torch.rand(9, 6, dtype=torch.float64)
    expected = torch.einsum("ncijk,ai,bk->ncajb", tensor, a, b)
    torch.testing.assert_close(apply_separable(tensor, (a, None, b)), expected)


def test_wrong_matrix_is_named():
    with pytest.raises(ValueError, match="axis 0 has 5 voxels, the matrix takes 4"):
        apply_separable(torch.rand(5, 6), (torch.rand(3, 4), None))


def test_unknown_kind_lists_the_known():
    with pytest.raises(ValueError, match="known: cubic, lanczos, linear, nearest"):
        interpolation_matrix(4, 8, kind="bicubic")


def test_a_matrix_first_made_in_inference_mode_can_be_differentiated_through():
    interpolation_matrix.cache_clear()
    with torch.inference_mode():
        resample(torch.rand(3, 5, dtype=torch.float64), (11,))
    image = torch.rand(3, 5, dtype=torch.float64, requires_grad=True)
    resample(image, (11,)).sum().backward()
    torch.testing.assert_close(image.grad.sum(), torch.tensor(33.0, dtype=torch.float64))


BOXES = [
    (slice(0, 1), slice(3, 7), slice(2, 5)),
    (slice(4, 9), slice(0, 8), slice(6, 7)),
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("antialias", [True, False])
@pytest.mark.parametrize("box", BOXES)
def test_a_box_is_resampled_alone_as_in_the_whole(kind, antialias, box):
    """Along axes that grow, shrink and stay."""
    torch.manual_seed(0)
    old_shape, new_shape = (6, 17, 7), (9, 8, 7)
    whole = torch.randn(2, *old_shape, dtype=torch.float64)
    options = {"kind": kind, "antialias": antialias}
    expected = resample(whole, new_shape, **options)[(..., *box)]
    actual = resample_box(whole, box, old_shape, new_shape, **options)
    torch.testing.assert_close(actual, expected)
    read = box_read(box, old_shape, new_shape, **options)
    assert all(0 <= r.start < r.stop <= n for r, n in zip(read, old_shape, strict=True))
    assert read[2] == box[2]
    at = (slice(0, 6), slice(max(0, read[1].start - 1), 17), read[2])  # more than is read
    part = whole[(..., *at)]
    actual = resample_box(part, box, old_shape, new_shape, at=at, **options)
    torch.testing.assert_close(actual, expected)


def test_a_box_reads_no_more_than_it_depends_on():
    box = (slice(4, 6),)
    assert box_read(box, (10,), (20,), kind="linear") == (slice(1, 4),)
    assert box_read(box, (10,), (20,), kind="cubic") == (slice(0, 5),)


@pytest.mark.parametrize(("old", "new"), [(31, 30), (30, 31), (20, 33), (33, 20)])
def test_lanczos_keeps_ramps_up_to_the_faces_and_frequencies_inside(old, new):
    matrix = interpolation_matrix(old, new, kind="lanczos", antialias=False)
    faces = (torch.arange(old, dtype=torch.float64) + 0.5) / old
    wanted = (torch.arange(new, dtype=torch.float64) + 0.5) / new
    torch.testing.assert_close(matrix @ faces, wanted, atol=2e-4, rtol=0)
    cycles = 0.7 * min(old, new) / 2  # 0.7 of what the coarser grid can hold
    wave, expected = (torch.cos(2 * torch.pi * cycles * x) for x in (faces, wanted))
    inside = slice(8, -8)
    error = (matrix @ wave - expected)[inside].abs().max()
    cubic = interpolation_matrix(old, new, kind="cubic", antialias=False)
    assert error < 0.03
    assert error < 0.3 * (cubic @ wave - expected)[inside].abs().max()
