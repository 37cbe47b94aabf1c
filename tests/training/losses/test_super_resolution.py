"""Masked L1, MSE and guidance by hand."""

import pytest
import torch
from nnunetv2.utilities.label_handling.label_handling import LabelManager

from srseg.networks.output import JointOutput
from srseg.training.losses.joint import JointLoss, LossContext
from srseg.training.losses.super_resolution import masked_l1, masked_mse

CONTEXT = LossContext(LabelManager({"background": 0, "a": 1}, None), batch_dice=False, scale=(2, 2))


@pytest.mark.parametrize(("loss", "expected"), [(masked_l1, 2.0), (masked_mse, 14 / 3)])
def test_only_valid_voxels_count(loss, expected):
    hr_image = torch.zeros(1, 2, 1, 1, 4)
    sr_image = torch.tensor([1.0, 2.0, 3.0, 100.0]).expand(1, 2, 1, 1, 4)
    valid = torch.tensor([True, True, True, False]).reshape(1, 1, 1, 1, 4)
    assert loss(sr_image, hr_image, valid).item() == pytest.approx(expected)


@pytest.mark.parametrize("loss", [masked_l1, masked_mse])
def test_nothing_valid_is_zero_with_a_gradient(loss):
    sr_image = torch.ones(1, 1, 2, 3, 2, requires_grad=True)
    value = loss(sr_image, torch.zeros(1, 1, 2, 3, 2), torch.zeros(1, 1, 2, 3, 2).bool())
    value.backward()
    assert value.item() == 0
    assert sr_image.grad.abs().sum() == 0


@pytest.mark.parametrize("loss", [masked_l1, masked_mse])
def test_shapes_must_agree(loss):
    with pytest.raises(ValueError, match="do not match"):
        loss(torch.ones(1, 1, 4, 4, 4), torch.ones(1, 1, 1, 4, 4), torch.ones(1, 1, 1, 4, 4))


def guidance_example():
    sr_image = torch.arange(6.0).reshape(1, 1, 2, 3).requires_grad_()
    batch = {
        "hr": torch.zeros(1, 1, 2, 3),
        "valid": torch.tensor([[True, True, True], [True, True, False]]).reshape(1, 1, 2, 3),
    }
    return JointOutput([], sr_image), batch


@pytest.mark.parametrize(("norm", "expected"), [("l1", 3.5), ("mse", 12.5)])
def test_guidance_is_the_mean_over_its_mask(norm, expected):
    """Mask 3, 4, 5, of which 5 is not valid: no division by the whole image."""
    loss = JointLoss({"guidance": {"weight": 1, "norm": norm}}, CONTEXT)
    output, batch = guidance_example()
    batch["guidance_mask"] = torch.tensor([[False] * 3, [True] * 3]).reshape(1, 1, 2, 3)
    assert loss(output, batch, 0.0)[0].item() == pytest.approx(expected)
    batch["has_hr"] = torch.tensor([False])
    assert loss(output, batch, 0.0)[0].item() == 0


@pytest.mark.parametrize("empty", [True, False])
def test_no_guidance_is_zero_with_a_gradient(empty):
    loss = JointLoss({"guidance": {"weight": 1}}, CONTEXT)
    output, batch = guidance_example()
    if empty:
        batch["guidance_mask"] = torch.zeros(1, 1, 2, 3, dtype=torch.bool)
    total, _ = loss(output, batch, 0.0)
    total.backward()
    assert total.item() == 0
    assert (output.sr.grad == 0).all()


def test_an_unknown_norm_is_named():
    with pytest.raises(ValueError, match=r"'norm' of loss term 'guidance' is 'l3'; allowed: one"):
        JointLoss({"guidance": {"weight": 1, "norm": "l3"}}, CONTEXT)
