from __future__ import annotations

import pytest
import torch

from srseg.geometry.grid import Grid
from srseg.geometry.separable import resample
from srseg.networks.interpolation import REACH, Interpolation, phase_weights

SCALES = [(1, 1, 1), (2, 1, 1), (1, 2, 2), (3, 2, 1), (2, 2, 2), (4, 3, 5)]


def hr_shape(shape: tuple[int, ...], scale: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(n * s for n, s in zip(shape, scale, strict=True))


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("shape", [(5, 8, 7), (1, 2, 3)])
def test_interpolation_is_the_cubic_resampling_of_geometry(scale, shape):
    torch.manual_seed(0)
    lr_image = torch.randn(2, 3, *shape)
    expected = resample(lr_image.double(), hr_shape(shape, scale), kind="cubic")
    torch.testing.assert_close(
        Interpolation(scale)(lr_image), expected.float(), atol=2e-6, rtol=1e-5
    )


@pytest.mark.parametrize("scale", [(2, 3), (1, 4)])
def test_interpolation_works_on_slices(scale):
    lr_image = torch.randn(1, 2, 6, 5, generator=torch.Generator().manual_seed(1))
    expected = resample(lr_image, hr_shape((6, 5), scale), kind="cubic")
    torch.testing.assert_close(Interpolation(scale)(lr_image), expected)


@pytest.mark.parametrize("scale", SCALES)
def test_a_volume_of_world_coordinates_stays_one(scale):
    oblique = (0.8, -0.6, 0.0, 0.6, 0.8, 0.0, 0.0, 0.0, 1.0)
    grid = Grid((7, 9, 8), (4.0, 0.7, 0.5), (10.0, -20.0, 30.0), oblique)
    refined = grid.refined(scale)

    def ramps(of: Grid) -> torch.Tensor:
        return torch.from_numpy(of.world_coordinates()).float()[None]

    hr_image = Interpolation(scale)(ramps(grid))
    inside = (slice(None), slice(None), *(slice(REACH * s, -REACH * s) for s in scale))
    torch.testing.assert_close(hr_image[inside], ramps(refined)[inside], atol=2e-5, rtol=0)


def test_weights_of_a_phase_mirror_and_sum_to_one():
    weights = torch.tensor(phase_weights(3), dtype=torch.float64)
    assert weights.shape == (3, 2 * REACH + 1)
    torch.testing.assert_close(weights.sum(1), torch.ones(3, dtype=torch.float64))
    torch.testing.assert_close(weights, weights.flip(0, 1))
    torch.testing.assert_close(weights[1], torch.eye(5, dtype=torch.float64)[2])  # on the voxel


def test_interpolation_stays_float32_under_autocast_and_leaves_no_weights():
    interpolation = Interpolation((2, 1, 3))
    lr_image = torch.randn(1, 1, 4, 5, 6, generator=torch.Generator().manual_seed(2))
    with torch.autocast("cpu", torch.bfloat16):
        inside = interpolation(lr_image)
    assert inside.dtype == torch.float32
    assert torch.equal(inside, interpolation(lr_image))
    assert not interpolation.state_dict()
    assert interpolation.reach == (2, 0, 2)


@pytest.mark.parametrize("scale", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("margin", [0, 1, 2, 3, 6])
def test_reach_beyond_is_where_a_neighbourhood_stops_to_depend_on_the_image(scale, margin):
    size, middle = 31, 15
    lr_image = torch.zeros(1, 1, size, 1, requires_grad=True)
    interpolation = Interpolation((scale, 1))
    start, stop = middle * scale - margin, (middle + 1) * scale + margin
    around = interpolation(lr_image)[0, 0, start:stop, 0]
    seen = torch.zeros(size, dtype=torch.bool)
    for value in around:  # one by one: weights of neighbours may cancel
        (gradient,) = torch.autograd.grad(value, lr_image, retain_graph=True)
        seen |= gradient[0, 0, :, 0].abs() > 1e-6
    first, last = seen.nonzero().min().item(), seen.nonzero().max().item()
    reach = interpolation.reach_beyond((margin, 0))
    assert reach == (middle - first, 0) == (last - middle, 0)
    assert margin or reach == interpolation.reach
