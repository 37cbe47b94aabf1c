"""The joint loss: named terms, schedules, and errors that list what is known."""

import pytest
import torch
from nnunetv2.utilities.label_handling.label_handling import LabelManager

from srseg.networks.output import JointOutput
from srseg.training.losses.joint import JointLoss

LABELS = LabelManager({"background": 0, "a": 1}, None)


def example():
    output = JointOutput([torch.zeros(1, 2, 2, 3, 4)], torch.full((1, 1, 2, 3, 4), 2.0))
    batch = {
        "target": [torch.ones(1, 1, 2, 3, 4)],
        "hr": torch.zeros(1, 1, 2, 3, 4),
        "valid": torch.ones(1, 1, 2, 3, 4, dtype=torch.bool),
    }
    return output, batch


def test_total_is_the_weighted_sum_of_terms_by_hand():
    terms = {"dice_ce": {"weight": 0.0}, "sr_l1": {"weight": {"start": 1, "end": 3}}}
    loss = JointLoss(terms, LABELS, batch_dice=False)
    total, values = loss(*example(), progress=0.5)
    assert values["sr_l1"].item() == 2.0
    assert total.item() == pytest.approx(2.0 * 2.0)
    assert set(values) == {"dice_ce", "sr_l1"}


def test_unknown_terms_and_options_are_listed():
    with pytest.raises(ValueError, match=r"unknown loss terms \['sr_l2'\]; known: dice_ce, sr_l1"):
        JointLoss({"sr_l2": {"weight": 1}}, LABELS, batch_dice=False)
    with pytest.raises(ValueError, match="allowed: weight"):
        JointLoss({"sr_l1": {"weight": 1, "wieght": 2}}, LABELS, batch_dice=False)
