"""1 - SSIM: the number that srseg.metrics.image gives, with a gradient."""

import numpy as np
import pytest
import torch
from nnunetv2.utilities.label_handling.label_handling import LabelManager

from srseg.metrics.image import mean_inside, ssim_map
from srseg.networks.output import JointOutput
from srseg.training.losses.intensity import percentile_range
from srseg.training.losses.joint import JointLoss, LossContext
from srseg.training.losses.ssim import ssim_loss

CONTEXT = LossContext(LabelManager({"background": 0, "a": 1}, None), batch_dice=False, scale=(2, 2))


def images(*shape):
    generator = torch.Generator().manual_seed(0)
    hr_image = 3 * torch.randn(1, 1, *shape, generator=generator)
    sr_image = hr_image + 0.5 * torch.randn(1, 1, *shape, generator=generator)
    return sr_image, hr_image, torch.ones(1, 1, *shape, dtype=torch.bool)


@pytest.mark.parametrize("shape", [(12, 13, 15), (3, 14, 13), (14, 5, 13)])
@pytest.mark.parametrize("holes", [False, True])
def test_the_metric_gives_the_same(shape, holes):
    sr_image, hr_image, valid = images(*shape)
    if holes:
        valid[..., -2:] = False
        valid[:, :, 0, 0, 0] = False
    low, width = percentile_range(hr_image, valid)
    similarity = ssim_map(
        (sr_image - low)[0, 0].numpy(),
        (hr_image - low)[0, 0].numpy(),
        data_range=width.item(),
        valid=valid[0, 0].numpy(),
    )
    assert ssim_loss(sr_image, hr_image, valid).item() == pytest.approx(
        1 - mean_inside(similarity, None), abs=2e-6
    )
    if holes:
        assert np.isnan(similarity).any()


def test_2d_images_are_one_slice_of_3d():
    sr_image, hr_image, valid = images(14, 17)
    in_3d = ssim_loss(sr_image[:, :, None], hr_image[:, :, None], valid[:, :, None])
    assert ssim_loss(sr_image, hr_image, valid).item() == pytest.approx(in_3d.item(), rel=1e-6)


def test_equal_images_give_zero_and_a_wider_range_less():
    sr_image, hr_image, valid = images(12, 13, 11)
    assert ssim_loss(hr_image, hr_image, valid).item() == pytest.approx(0, abs=1e-6)
    narrow, wide = (ssim_loss(sr_image, hr_image, valid, data_range=r).item() for r in (5, 50))
    assert 0 < wide < narrow


def test_the_gradient_makes_the_image_more_similar():
    sr_image, hr_image, valid = images(12, 13, 11)
    sr_image.requires_grad_()
    before = ssim_loss(sr_image, hr_image, valid)
    before.backward()
    assert torch.isfinite(sr_image.grad).all()
    assert (sr_image.grad != 0).all()
    after = ssim_loss(sr_image.detach() - 10 * sr_image.grad, hr_image, valid)
    assert after.item() < before.item()


def test_constant_and_extreme_images_have_a_finite_gradient():
    sr_image, hr_image, valid = images(12, 13, 11)
    for image in (torch.full_like(hr_image, 7.0), 1e5 * hr_image):
        leaf = sr_image.clone().requires_grad_()
        ssim_loss(leaf, image, valid).backward()
        assert torch.isfinite(leaf.grad).all()
    leaf = (1e5 * sr_image).requires_grad_()
    ssim_loss(leaf, hr_image, valid).backward()
    assert torch.isfinite(leaf.grad).all()


@pytest.mark.parametrize("offset", [30, 1e4])
def test_far_off_the_range_loss_and_gradient_are_bounded(offset):
    """Variances are small differences of large numbers there."""
    _, hr_image, valid = images(12, 13, 11)
    sr_image = (torch.full_like(hr_image, offset) + 1e-3 * hr_image).requires_grad_()
    value = ssim_loss(sr_image, hr_image, valid, data_range=0.01)
    value.backward()
    assert 0 <= value.item() <= 2
    assert sr_image.grad.abs().max() < 10


def test_nothing_valid_is_zero_with_a_gradient():
    sr_image, hr_image, valid = images(12, 13, 11)
    sr_image.requires_grad_()
    value = ssim_loss(sr_image, hr_image, ~valid)
    value.backward()
    assert value.item() == 0
    assert (sr_image.grad == 0).all()


def test_the_term_takes_a_data_range():
    sr_image, hr_image, valid = images(14, 17)
    loss = JointLoss({"sr_ssim": {"weight": 2, "data_range": 5}}, CONTEXT)
    total, values = loss(JointOutput([], sr_image), {"hr": hr_image, "valid": valid}, 0.0)
    expected = ssim_loss(sr_image, hr_image, valid, data_range=5).item()
    assert values["sr_ssim"].item() == pytest.approx(expected)
    assert total.item() == pytest.approx(2 * expected)
    with pytest.raises(ValueError, match="'data_range' of loss term 'sr_ssim' is 0; allowed: null"):
        JointLoss({"sr_ssim": {"weight": 1, "data_range": 0}}, CONTEXT)


def test_small_patches_are_refused():
    with pytest.raises(ValueError, match="11 voxels along two axes"):
        ssim_loss(*images(10, 30, 10))
