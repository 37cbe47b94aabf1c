"""Dice + cross-entropy counts only valid voxels, and by hand where it can be."""

import math

import pytest
import torch
from nnunetv2.training.loss.compound_losses import DC_and_BCE_loss
from nnunetv2.training.loss.dice import MemoryEfficientSoftDiceLoss
from nnunetv2.utilities.label_handling.label_handling import LabelManager

from srseg.training.losses.segmentation import (
    MASKED_LABEL,
    DiceAndCrossEntropy,
    deep_supervision_weights,
    masked_target,
)

LABELS = LabelManager({"background": 0, "a": 1, "b": 2}, None)
IGNORE = LabelManager({"background": 0, "a": 1, "b": 2, "ignore": 3}, None)
REGIONS = LabelManager({"background": 0, "whole": (1, 2), "core": (2,)}, [1, 2])
BOTH = LabelManager({"background": 0, "whole": (1, 2), "core": (2,), "ignore": 3}, [1, 2])


def test_weights_halve_and_sum_to_one():
    assert deep_supervision_weights(3, keep_all=False) == pytest.approx([2 / 3, 1 / 3, 0])
    assert deep_supervision_weights(1, keep_all=False) == [1.0]
    assert min(deep_supervision_weights(3, keep_all=True)) > 0


def test_uniform_logits_by_hand():
    """Four voxels, labels 0 1 2 1, uniform probabilities 1/3.

    CE = ln 3. Dice of a: 2 (2/3) / (2 + 4/3) = 0.4; of b: 2 (1/3) / (1 + 4/3) = 2/7.
    """
    loss = DiceAndCrossEntropy(LABELS, batch_dice=False, ddp=False)
    target = torch.tensor([0, 1, 2, 1]).reshape(1, 1, 1, 2, 2)
    valid = torch.ones(1, 1, 1, 2, 2, dtype=torch.bool)
    value = loss([torch.zeros(1, 3, 1, 2, 2)], [target], valid)
    assert value.item() == pytest.approx(math.log(3) - (0.4 + 2 / 7) / 2, abs=1e-4)


@pytest.mark.parametrize("batch_dice", [False, True])
@pytest.mark.parametrize("shape", [(3, 4, 5), (4, 5)])
def test_a_perfect_prediction_has_the_dice_one(shape, batch_dice):
    """Without its factor 2, as in PFSeg's published code, Dice would be 0.5 there."""
    generator = torch.Generator().manual_seed(0)
    target = torch.randint(0, 3, (2, 1, *shape), generator=generator)
    logits = torch.zeros(2, 3, *shape).scatter_(1, target, 100.0)
    valid = torch.ones(2, 1, *shape, dtype=torch.bool)
    loss = DiceAndCrossEntropy(LABELS, batch_dice=batch_dice, ddp=False)
    assert loss([logits], [target], valid).item() == pytest.approx(-1, abs=1e-5)


@pytest.mark.parametrize("manager", [LABELS, REGIONS])
def test_invalid_voxels_change_nothing(manager):
    loss = DiceAndCrossEntropy(manager, batch_dice=False, ddp=False)
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, manager.num_segmentation_heads, 3, 4, 5, generator=generator)
    channels = 2 if manager.has_regions else 1
    target = torch.randint(0, 2, (2, channels, 3, 4, 5), generator=generator)
    valid = torch.ones(2, 1, 3, 4, 5, dtype=torch.bool)
    valid[..., 3:] = False
    other_logits, other_target = logits.clone(), target.clone()
    other_logits[..., 3:] += 7
    other_target[..., 3:] = 1 - other_target[..., 3:]
    expected = loss([logits], [target], valid)
    assert loss([other_logits], [other_target], valid).item() == pytest.approx(expected.item())
    everywhere = torch.ones_like(valid)
    assert loss([other_logits], [other_target], everywhere).item() != pytest.approx(expected.item())


def test_regions_weigh_as_in_nnunet_without_a_mask():
    stock = DC_and_BCE_loss(
        {},
        {"batch_dice": False, "do_bg": True, "smooth": 1e-5, "ddp": False},
        dice_class=MemoryEfficientSoftDiceLoss,
    )
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 2, 3, 4, 5, generator=generator)
    target = torch.rand(2, 2, 3, 4, 5, generator=generator) > 0.5
    ours = DiceAndCrossEntropy(REGIONS, batch_dice=False, ddp=False)
    value = ours([logits], [target], torch.ones(2, 1, 3, 4, 5, dtype=torch.bool))
    assert value.item() == pytest.approx(stock(logits, target).item(), rel=1e-5)


def test_ignore_label_and_invalid_voxels_are_masked():
    target = torch.tensor([0, 1, 3, 2]).reshape(1, 1, 1, 1, 4)
    valid = torch.tensor([False, True, True, True]).reshape(1, 1, 1, 1, 4)
    masked = masked_target(target, valid, IGNORE)
    assert masked.flatten().tolist() == [MASKED_LABEL, 1, MASKED_LABEL, 2]


def test_ignored_voxels_change_nothing_beside_regions():
    loss = DiceAndCrossEntropy(BOTH, batch_dice=False, ddp=False)
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 2, 3, 4, 5, generator=generator)
    target = torch.rand(2, 3, 3, 4, 5, generator=generator) > 0.5
    target[:, 2] = False
    target[:, 2, ..., 3:] = True  # the last channel: not annotated
    valid = torch.ones(2, 1, 3, 4, 5, dtype=torch.bool)
    valid[:, :, 0] = False
    masked = masked_target(target, valid, BOTH)
    assert torch.equal(masked[:, :2], target[:, :2])
    assert torch.equal(masked[:, 2:], target[:, 2:] | ~valid)
    other_logits, other_target = logits.clone(), target.clone()
    other_logits[..., 3:] += 7
    other_target[:, :2, ..., 3:] ^= True
    expected = loss([logits], [target], valid).item()
    assert loss([other_logits], [other_target], valid).item() == pytest.approx(expected)
    other_target[:, 2] = False
    assert loss([other_logits], [other_target], valid).item() != pytest.approx(expected)


def test_coarser_targets_get_a_coarser_mask():
    valid = torch.ones(1, 1, 4, 4, 4, dtype=torch.bool)
    valid[..., 2:] = False
    masked = masked_target(torch.ones(1, 1, 2, 2, 2), valid, LABELS)
    assert (masked[..., 0] == 1).all()
    assert (masked[..., 1] == MASKED_LABEL).all()


def test_nothing_valid_is_finite():
    loss = DiceAndCrossEntropy(LABELS, batch_dice=False, ddp=False)
    valid = torch.zeros(1, 1, 2, 2, 2, dtype=torch.bool)
    value = loss([torch.randn(1, 3, 2, 2, 2)], [torch.ones(1, 1, 2, 2, 2)], valid)
    assert torch.isfinite(value)


def test_wrong_shapes_are_named():
    loss = DiceAndCrossEntropy(LABELS, batch_dice=False, ddp=False)
    with pytest.raises(ValueError, match="segmentation outputs have shapes"):
        loss([torch.zeros(1, 3, 2, 2, 2)], [torch.zeros(1, 1, 1, 2, 2)], torch.ones(1, 1, 2, 2, 2))
