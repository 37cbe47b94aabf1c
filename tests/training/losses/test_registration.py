"""Registration's losses against values worked out by hand."""

import numpy as np
import pytest
import torch

from srseg.networks.registration.warp import voxel_positions
from srseg.training.losses.registration import (
    inverse_consistency_loss,
    lncc_loss,
    one_hot,
    smoothness_loss,
    soft_cross_entropy,
    soft_dice_loss,
)


def noise(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def everywhere(image):
    return torch.ones_like(image[:, :1], dtype=torch.bool)


@pytest.mark.parametrize("shape", [(7, 6, 9), (8, 5)])
def test_lncc_is_the_correlation_in_each_window(shape):
    first, second = noise(1, 1, *shape), noise(1, 1, *shape, seed=1)
    half, total, count = 1, 0.0, 0
    for at in np.ndindex(*shape):
        window = tuple(slice(max(0, i - half), i + half + 1) for i in at)
        a, b = (image[0, 0][window].double().numpy().ravel() for image in (first, second))
        cross = (a * b).mean() - a.mean() * b.mean()
        total += 1 - cross**2 / (a.var() * b.var() + 1e-5)
        count += 1
    ours = lncc_loss(first, second, everywhere(first), window=3)
    assert float(ours) == pytest.approx(total / count, abs=1e-4)


def test_lncc_ignores_contrast_and_what_is_not_valid():
    image = noise(1, 2, 9, 10, 11)
    assert float(lncc_loss(image, 7 - 3 * image, everywhere(image))) < 1e-3
    valid = everywhere(image)
    valid[..., 6:] = False
    spoilt = image.clone()
    spoilt[..., 9:] = noise(1, 2, 9, 10, 2, seed=2)
    near = float(lncc_loss(image, spoilt, valid, window=5))
    assert near < 1e-3  # windows of valid voxels end at 7
    assert float(lncc_loss(image, spoilt, everywhere(image), window=5)) > 0.05


def test_lncc_of_constant_images_is_one_with_finite_gradients():
    flat = torch.full((1, 1, 6, 7, 8), 3.0, requires_grad=True)
    loss = lncc_loss(flat, torch.full_like(flat, 5.0), everywhere(flat))
    loss.backward()
    assert float(loss.detach()) == pytest.approx(1.0)
    assert torch.isfinite(flat.grad).all()
    faint = 1e4 + 1e-3 * noise(1, 1, 6, 7, 8)
    assert 0 <= float(lncc_loss(faint, faint.clone(), everywhere(faint))) <= 1


def test_a_window_wider_than_the_volume_shrinks():
    thin = noise(1, 1, 2, 12, 12)
    assert float(lncc_loss(thin, thin * 2, everywhere(thin), window=9)) < 1e-3


@pytest.mark.parametrize("spacing", [(3.0, 0.8, 1.5), (2.0, 0.5)])
def test_smoothness_of_a_linear_field_by_hand(spacing):
    ndim = len(spacing)
    at = voxel_positions((4, 5, 6)[:ndim])
    field = torch.zeros(1, ndim, *at.shape[1:])
    field[0, 0] = 0.25 * at[1]  # 0.25 voxels of axis 0 for each voxel of axis 1
    slope = 0.25 * spacing[0] / spacing[1]
    expected = slope**2 / ndim / ndim  # one of the components, one of the directions
    assert float(smoothness_loss(field, spacing)) == pytest.approx(expected, rel=1e-5)
    assert float(smoothness_loss(torch.full_like(field, 4.0), spacing)) == 0


def test_inverse_consistency_by_hand():
    ramp = torch.arange(10.0).expand(1, 1, 3, 10).contiguous()
    field = torch.zeros(1, 2, 3, 10)
    field[:, 1] = 2.0
    valid = torch.zeros(1, 1, 3, 10, dtype=torch.bool)
    valid[..., 2:6] = True
    assert float(inverse_consistency_loss(ramp, field, -field, valid)) == 0
    assert float(inverse_consistency_loss(ramp, field, 0 * field, valid)) == 2
    assert float(inverse_consistency_loss(ramp, field, field, valid)) == pytest.approx(
        (4 + 4 + 4 + 4) / 4
    )


def test_one_hot_has_all_classes_and_takes_the_outside_for_background():
    labels = torch.tensor([[-1, 0, 2, 2]])[None, None].short()
    encoded = one_hot(labels, 4)
    assert encoded.shape == (1, 4, 1, 4)
    assert encoded[0, :, 0].T.tolist() == [[1, 0, 0, 0], [1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 1, 0]]
    with pytest.raises(ValueError, match="label 2 is none of the 2 classes"):
        one_hot(labels, 2)


def test_dice_by_hand_leaves_the_background_out():
    target = torch.tensor([[0.0, 0, 1, 1], [1, 1, 0, 0], [0, 0, 0, 0]])[None, :, None]
    ours = torch.tensor([[0.0, 0, 0, 0.5], [0.5, 1, 0.5, 0], [0.5, 0, 0.5, 0.5]])[None, :, None]
    valid = torch.ones(1, 1, 1, 4, dtype=torch.bool)
    expected = 1 - 2 * 1.5 / (2 + 2)  # class 1 alone: class 2 is absent, class 0 the background
    assert float(soft_dice_loss(ours, target, valid)) == pytest.approx(expected)
    valid[..., 2] = False
    assert float(soft_dice_loss(ours, target, valid)) == pytest.approx(1 - 2 * 1.5 / (1.5 + 2))
    assert float(soft_dice_loss(target, target, valid)) == pytest.approx(0, abs=1e-6)


def test_cross_entropy_against_soft_labels_by_hand():
    probabilities = torch.tensor([0.7, 0.2, 0.1]).reshape(1, 3, 1, 1).expand(1, 3, 1, 2)
    target = torch.tensor([[0.5, 1.0], [0.5, 0.0], [0.0, 0.0]]).reshape(1, 3, 1, 2)
    valid = torch.tensor([[True, False]]).reshape(1, 1, 1, 2)
    expected = -(0.5 * np.log(0.7) + 0.5 * np.log(0.2))
    loss = soft_cross_entropy(probabilities.log() + 3, target, valid)
    assert float(loss) == pytest.approx(expected, rel=1e-5)
