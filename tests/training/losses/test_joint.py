"""The joint loss: named terms, schedules, and errors that list what is known."""

import pytest
import torch
from nnunetv2.utilities.label_handling.label_handling import LabelManager

from srseg.degradation.degradation import Degradation
from srseg.degradation.spec import AxisDegradation, DegradationSpec
from srseg.networks.output import JointOutput
from srseg.training.losses.joint import LOSS_TERMS, SR_TERMS, JointLoss, LossContext

LABELS = LabelManager({"background": 0, "a": 1}, None)
CONTEXT = LossContext(LABELS, batch_dice=False, scale=(1, 1, 2))


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
    loss = JointLoss(terms, CONTEXT)
    total, values = loss(*example(), progress=0.5)
    assert values["sr_l1"].item() == 2.0
    assert total.item() == pytest.approx(2.0 * 2.0)
    assert set(values) == {"dice_ce", "sr_l1"}


def test_unknown_terms_and_options_are_listed():
    with pytest.raises(ValueError, match=r"unknown loss terms \['sr_l2'\]; known: .*sr_l1"):
        JointLoss({"sr_l2": {"weight": 1}}, CONTEXT)
    with pytest.raises(ValueError, match=r"'sr_l1' has the unknown options .*; known: weight"):
        JointLoss({"sr_l1": {"weight": 1, "wieght": 2}}, CONTEXT)
    with pytest.raises(ValueError, match=r"'sr_l1' lacks the options \['weight'\]"):
        JointLoss({"sr_l1": {}}, CONTEXT)


def test_a_weight_may_grow_with_the_rounds():
    loss = JointLoss({"sr_l1": {"weight": {"per_round": 0.5}}}, CONTEXT)
    totals = [loss(*example(), progress=0.3, round=n)[0].item() for n in (0, 1, 4)]
    assert totals == pytest.approx([0.0, 1.0, 4.0])
    assert loss(*example(), progress=0.3)[0].item() == 0


def test_terms_that_look_at_the_sr_image_are_known():
    assert set(LOSS_TERMS) - SR_TERMS == {"dice_ce", "ohem_ce", "weighted_ce"}


def test_a_network_without_sr_image_is_named():
    output, batch = example()
    loss = JointLoss({"sr_l1": {"weight": 1}}, CONTEXT)
    with pytest.raises(ValueError, match=r"\['sr_l1'\] need an SR image"):
        loss(output._replace(sr=None), batch, 0.0)


def test_the_spacing_has_the_axes_of_the_batches():
    degradation = Degradation(
        DegradationSpec((AxisDegradation("identity"), *(AxisDegradation("area"),) * 2)),
        (1, 2, 3),
        (9.0, 0.5, 0.7),
    )
    context = LossContext(LABELS, batch_dice=False, scale=(2, 3), degradation=degradation)
    assert context.hr_spacing == (0.5, 0.7)
    assert CONTEXT.hr_spacing == (1.0, 1.0, 1.0)
