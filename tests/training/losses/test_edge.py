"""Edges: Sobel magnitudes by hand, with a gradient."""

import math

import pytest
import torch
from nnunetv2.utilities.label_handling.label_handling import LabelManager

from srseg.degradation.degradation import Degradation
from srseg.degradation.spec import AxisDegradation, DegradationSpec
from srseg.networks.output import JointOutput
from srseg.training.losses.edge import edge_loss, gradient_magnitude
from srseg.training.losses.joint import JointLoss, LossContext

LABELS = LabelManager({"background": 0, "a": 1}, None)


def ramp(*slopes, shape):
    axes = torch.meshgrid(*(torch.arange(float(n)) for n in shape), indexing="ij")
    return sum(slope * axis for slope, axis in zip(slopes, axes, strict=True))[None, None]


def test_a_ramp_by_hand():
    """Slopes 3, 0 and 2 a voxel of 2, 1 and 0.5 mm: 0.75, 0 and 2 per 0.5 mm."""
    magnitude = gradient_magnitude(ramp(3, 0, 2, shape=(3, 5, 4)), (2.0, 1.0, 0.5), 1e-6)
    assert magnitude.shape == (1, 1, 1, 3, 2)
    assert magnitude.flatten().tolist() == pytest.approx([math.hypot(0.75, 2)] * 6)


def test_one_bright_pixel_by_hand():
    """Sobel: 1/2 (high - low) smoothed by (1, 2, 1) / 4 gives 1/4 beside, hypot(1/8, 1/8) askew."""
    image = torch.zeros(1, 1, 5, 5)
    image[..., 2, 2] = 1
    magnitude = gradient_magnitude(image, (1.0, 1.0), 1e-6)[0, 0]
    askew = math.sqrt(2) / 8
    expected = [[askew, 0.25, askew], [0.25, 0, 0.25], [askew, 0.25, askew]]
    assert magnitude.tolist() == [pytest.approx(row, abs=2e-6) for row in expected]


def test_thin_axes_are_left_as_they_are():
    thin = gradient_magnitude(ramp(5, 3, 4, shape=(2, 4, 5)), (1.0, 1.0, 1.0), 1e-6)
    assert thin.shape == (1, 1, 2, 2, 3)
    assert thin.flatten().tolist() == pytest.approx([5.0] * 12)


def test_the_loss_is_the_difference_of_the_slopes():
    hr_image, sr_image = ramp(3, 4, shape=(4, 5)), ramp(0, 2, shape=(4, 5))
    valid = torch.ones(1, 1, 4, 5, dtype=torch.bool)
    value = edge_loss(sr_image, hr_image, valid, hr_spacing=(1.0, 1.0))
    assert value.item() == pytest.approx(5 - 2, rel=1e-5)


def test_neighbours_must_be_valid():
    generator = torch.Generator().manual_seed(0)
    hr_image, sr_image = torch.randn(2, 1, 2, 5, 6, 7, generator=generator)
    valid = torch.ones(1, 1, 5, 6, 7, dtype=torch.bool)
    valid[..., 6] = False
    expected = edge_loss(sr_image[..., :6], hr_image[..., :6], valid[..., :6], hr_spacing=(1, 1, 1))
    value = edge_loss(sr_image, hr_image, valid, hr_spacing=(1, 1, 1))
    assert value.item() == pytest.approx(expected.item(), rel=1e-6)


@pytest.mark.parametrize("shape", [(8, 9), (5, 8, 9)])
def test_a_blurred_image_gets_a_gradient_towards_the_edges(shape):
    """A comparison of Canny maps has none at all."""
    generator = torch.Generator().manual_seed(0)
    hr_image = (torch.randn(2, 1, *shape, generator=generator) > 0).float()
    sr_image = (0.5 * hr_image).requires_grad_()
    valid = torch.ones(2, 1, *shape, dtype=torch.bool)
    spacing = (1.0,) * len(shape)
    before = edge_loss(sr_image, hr_image, valid, hr_spacing=spacing)
    before.backward()
    assert torch.isfinite(sr_image.grad).all()
    assert (sr_image.grad != 0).float().mean() > 0.9
    after = edge_loss(sr_image.detach() - sr_image.grad, hr_image, valid, hr_spacing=spacing)
    assert after.item() < before.item()


def test_flat_images_have_a_finite_gradient():
    sr_image = torch.ones(1, 1, 4, 5, requires_grad=True)
    valid = torch.ones(1, 1, 4, 5, dtype=torch.bool)
    edge_loss(sr_image, ramp(1, 1, shape=(4, 5)), valid, hr_spacing=(1.0, 1.0)).backward()
    assert torch.isfinite(sr_image.grad).all()


@pytest.mark.parametrize("shape", [(4, 5), (2, 2)])
def test_nothing_to_count_is_zero_with_a_gradient(shape):
    sr_image = torch.rand(1, 1, *shape, requires_grad=True)
    valid = torch.full((1, 1, *shape), shape == (2, 2))
    value = edge_loss(sr_image, torch.zeros(1, 1, *shape), valid, hr_spacing=(1.0, 1.0))
    value.backward()
    assert value.item() == 0
    assert (sr_image.grad == 0).all()


def test_the_term_knows_the_spacing_and_the_epsilon():
    axes = (AxisDegradation("identity"), AxisDegradation("area"), AxisDegradation("area"))
    degradation = Degradation(DegradationSpec(axes), (1, 2, 3), (9.0, 1.0, 0.5))
    context = LossContext(LABELS, batch_dice=False, scale=(2, 3), degradation=degradation)
    batch = {"hr": ramp(3, 0, shape=(4, 5)), "valid": torch.ones(1, 1, 4, 5, dtype=torch.bool)}
    output = JointOutput([], torch.zeros(1, 1, 4, 5))
    loss = JointLoss({"edge": {"weight": 1, "epsilon": 2}}, context)
    assert loss(output, batch, 0.0)[0].item() == pytest.approx(2.5 - 2)
    with pytest.raises(ValueError, match="'epsilon' of loss term 'edge' is -1"):
        JointLoss({"edge": {"weight": 1, "epsilon": -1}}, context)
