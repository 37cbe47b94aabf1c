"""Warping: the identity exactly, known shifts, composition, integration, the Jacobian by hand."""

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from srseg.networks.registration.warp import (
    composed,
    folded_share,
    integrated,
    jacobian_determinant,
    refined,
    voxel_positions,
    warp,
    warp_labels,
)

SHAPES = [(5, 7, 4), (6, 9), (1, 8, 5)]


def noise(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def smooth_field(shape, size, seed=0):
    """A displacement of at most about `size` voxels that changes slowly and is 0 far outside."""
    coarse = noise(1, len(shape), *[3] * len(shape), seed=seed)
    mode = {2: "bilinear", 3: "trilinear"}[len(shape)]
    field = torch.nn.functional.interpolate(coarse, shape, mode=mode, align_corners=True)
    return size * field / field.abs().max()


@pytest.mark.parametrize("shape", SHAPES)
def test_the_zero_field_is_the_identity_bit_for_bit(shape):
    image = noise(2, 3, *shape) * 1e3
    assert torch.equal(warp(image, torch.zeros(2, len(shape), *shape)), image)


@pytest.mark.parametrize("shape", SHAPES)
def test_whole_shifts_move_voxels_and_repeat_the_edge(shape):
    image = noise(1, 2, *shape)
    for axis, n in enumerate(shape):
        field = torch.zeros(1, len(shape), *shape)
        field[:, axis] = 2.0
        index = (torch.arange(n) + 2).clamp_max(n - 1)
        assert torch.equal(warp(image, field), image.index_select(axis + 2, index))


def test_a_coordinate_image_shows_the_field():
    shape = (6, 9, 7)
    field = smooth_field(shape, 0.9)
    positions = voxel_positions(shape)[None]
    inside = torch.ones(shape, dtype=torch.bool)
    for axis, n in enumerate(shape):
        inside &= ((positions + field)[0, axis] >= 0) & ((positions + field)[0, axis] <= n - 1)
    difference = warp(positions, field) - (positions + field)
    assert inside.float().mean() > 0.5
    assert difference[:, :, inside].abs().max() < 1e-5


def test_it_is_itk_s_linear_interpolation():
    shape = (6, 9, 7)
    image, field = noise(1, 1, *shape), smooth_field(shape, 1.4)
    vectors = np.moveaxis(field[0].numpy()[::-1].astype(float), 0, -1)  # ITK's order x, y, z
    transform = sitk.DisplacementFieldTransform(sitk.GetImageFromArray(vectors, isVector=True))
    moving = sitk.GetImageFromArray(image[0, 0].numpy())
    theirs = sitk.GetArrayFromImage(sitk.Resample(moving, moving, transform, sitk.sitkLinear, 99.0))
    inside = theirs != 99
    assert 0.5 < inside.mean() < 1
    np.testing.assert_allclose(warp(image, field)[0, 0].numpy()[inside], theirs[inside], atol=1e-5)


def test_gradients_reach_field_and_image():
    image = noise(1, 2, 4, 5, 3).double().requires_grad_()
    field = (0.3 + 0.2 * noise(1, 3, 4, 5, 3, seed=1).tanh()).double().requires_grad_()
    warp(image, field).square().sum().backward()
    change = 1e-3 * noise(1, 3, 4, 5, 3, seed=2).double()
    with torch.no_grad():
        up, down = (warp(image, field + s * change).double().square().sum() for s in (1, -1))
    assert float((field.grad * change).sum()) == pytest.approx(float(up - down) / 2, rel=2e-2)
    assert image.grad.abs().sum() > 0


def test_a_field_of_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"shape \(1, 3, 4, 5, 6\), got \(1, 2, 4, 5, 6\)"):
        warp(torch.zeros(1, 1, 4, 5, 6), torch.zeros(1, 2, 4, 5, 6))


def test_labels_are_the_nearest_of_the_interpolated_classes():
    labels = torch.tensor([[0, 0, 2, 2, 1]])[None]
    one_hot = torch.nn.functional.one_hot(labels[0], 3).movedim(-1, 0)[None].float()
    for shift, expected in ((0.4, [0, 0, 2, 2, 1]), (0.6, [0, 2, 2, 1, 1])):
        field = torch.zeros(1, 2, 1, 5)
        field[:, 1] = shift
        assert warp_labels(one_hot, field)[0, 0].tolist() == expected


def test_composition_is_one_warp_after_the_other():
    shape = (12, 15, 13)
    ramp = voxel_positions(shape)[None].mul(torch.tensor([1.0, -2.0, 0.5]).reshape(1, 3, 1, 1, 1))
    first, then = smooth_field(shape, 1.0, seed=3), smooth_field(shape, 0.8, seed=4)
    inner = (..., *[slice(3, -3)] * 3)
    twice, once = warp(warp(ramp, first), then), warp(ramp, composed(first, then))
    torch.testing.assert_close(twice[inner], once[inner], atol=1e-4, rtol=0)
    swapped = warp(ramp, composed(then, first))
    assert (twice[inner] - swapped[inner]).abs().max() > 0.05


def test_integration_of_a_linear_velocity_is_the_exponential():
    shape = (21, 25)
    centre = torch.tensor([10.0, 12.0]).reshape(2, 1, 1)
    at = voxel_positions(shape) - centre
    velocity = torch.stack((0.2 * at[0], -0.1 * at[1]))[None]
    displacement = integrated(velocity, 7)[0]
    expected = torch.stack((at[0] * (np.exp(0.2) - 1), at[1] * (np.exp(-0.1) - 1)))
    inner = (slice(None), slice(5, -5), slice(5, -5))
    torch.testing.assert_close(displacement[inner], expected[inner], atol=0.03, rtol=0)
    assert torch.equal(integrated(velocity, 0), velocity)


def test_integration_unfolds_what_would_fold():
    velocity = smooth_field((16, 18, 14), 9.0, seed=5)
    ones = (1.0, 1.0, 1.0)
    assert folded_share(jacobian_determinant(velocity, ones)) > 0.02
    assert folded_share(jacobian_determinant(integrated(velocity, 7), ones)) < 0.002


def test_refining_keeps_the_faces_together():
    """A field that is linear in space stays it: HR voxel i lies at (i + 0.5) / scale - 0.5."""
    scale, shape = (1, 2, 3), (4, 5, 6)
    lr_at = voxel_positions(shape)
    field = torch.stack([0.1 * lr_at[1], 0.2 * lr_at[2], 0.3 * lr_at[2] - 0.1 * lr_at[0]])[None]
    hr_at = voxel_positions([n * s for n, s in zip(shape, scale, strict=True)])
    factors = torch.tensor(scale).reshape(3, 1, 1, 1)
    at = (hr_at + 0.5) / factors - 0.5
    expected = torch.stack([0.1 * at[1], 0.2 * at[2], 0.3 * at[2] - 0.1 * at[0]]) * factors
    inner = (slice(None), slice(0, None), slice(1, -1), slice(2, -2))
    torch.testing.assert_close(refined(field, scale)[0][inner], expected[inner])


@pytest.mark.parametrize("spacing", [(3.0, 0.8, 1.1), (2.0, 0.7)])
def test_the_jacobian_of_an_affine_field_is_its_determinant(spacing):
    ndim = len(spacing)
    matrix = torch.eye(ndim) + 0.2 * noise(ndim, ndim, seed=6)
    shape = (5, 6, 7)[:ndim]
    at_mm = voxel_positions(shape) * torch.tensor(spacing).reshape(-1, *(1,) * ndim)
    field_mm = torch.einsum("ij,j...->i...", matrix - torch.eye(ndim), at_mm)[None]
    determinant = jacobian_determinant(field_mm, spacing)
    expected = float(torch.linalg.det(matrix))
    assert abs(expected - 1) > 0.05
    np.testing.assert_allclose(determinant.numpy(), np.full((1, *shape), expected), atol=1e-4)


def test_a_mirror_folds_everywhere_and_a_step_where_it_is():
    at = voxel_positions((4, 6, 5))
    field = torch.zeros(1, 3, 4, 6, 5)
    field[0, 1] = -2.5 * at[1]  # y -> -1.5 y
    assert folded_share(jacobian_determinant(field, (1, 1, 1))) == 1
    field = torch.zeros(1, 3, 4, 6, 5)
    field[0, 1, :, 3:] = -4.0  # one step: central differences of -2 in two of six planes
    assert folded_share(jacobian_determinant(field, (1, 1, 1))) == pytest.approx(2 / 6)


def test_a_single_slice_has_no_slope_across():
    field = torch.zeros(1, 3, 1, 4, 5)
    field[0, 2] = 0.5 * torch.arange(5.0)
    np.testing.assert_allclose(jacobian_determinant(field, (4, 1, 1)).numpy(), 1.5)
