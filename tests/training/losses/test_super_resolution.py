"""Masked L1 by hand."""

import pytest
import torch

from srseg.training.losses.super_resolution import masked_l1


def test_only_valid_voxels_count():
    hr_image = torch.zeros(1, 2, 1, 1, 4)
    sr_image = torch.tensor([1.0, 2.0, 3.0, 100.0]).expand(1, 2, 1, 1, 4)
    valid = torch.tensor([True, True, True, False]).reshape(1, 1, 1, 1, 4)
    assert masked_l1(sr_image, hr_image, valid).item() == pytest.approx(2.0)


def test_nothing_valid_is_zero_with_a_gradient():
    sr_image = torch.ones(1, 1, 2, 3, 2, requires_grad=True)
    loss = masked_l1(sr_image, torch.zeros(1, 1, 2, 3, 2), torch.zeros(1, 1, 2, 3, 2).bool())
    loss.backward()
    assert loss.item() == 0
    assert sr_image.grad.abs().sum() == 0


def test_shapes_must_agree():
    with pytest.raises(ValueError, match="do not match"):
        masked_l1(torch.ones(1, 1, 4, 4, 4), torch.ones(1, 1, 1, 4, 4), torch.ones(1, 1, 1, 4, 4))
