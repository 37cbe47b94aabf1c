"""LR consistency: nothing for the true HR image, only where the whole footprint is known."""

import pytest
import torch
from nnunetv2.utilities.label_handling.label_handling import LabelManager

from srseg.degradation.degradation import Degradation
from srseg.degradation.spec import AxisDegradation, DegradationSpec, paired_spec
from srseg.networks.output import JointOutput
from srseg.training.losses.consistency import consistency_loss
from srseg.training.losses.joint import JointLoss, LossContext

LABELS = LabelManager({"background": 0, "a": 1}, None)
IDENTITY, AREA = AxisDegradation("identity"), AxisDegradation("area")


def context(spec, scale, spacing):
    degradation = (
        None if spec is None else Degradation(spec, (1,) * (3 - len(scale)) + scale, spacing)
    )
    return LossContext(LABELS, batch_dice=False, scale=scale, degradation=degradation)


AREA_2D = context(DegradationSpec((IDENTITY, IDENTITY, AREA)), (1, 2), (1.0, 1.0, 1.0))
GAUSS = context(
    DegradationSpec((AREA, IDENTITY, AxisDegradation("slice_gauss", {"thickness_mm": 2.0}))),
    (2, 1, 2),
    (1.0, 1.0, 1.0),
)


def crop(hr_start, hr_stop, *, seed=0):
    """A patch along x of a degraded volume."""
    generator = torch.Generator().manual_seed(seed)
    hr_image = torch.randn(2, 1, 6, 5, 40, generator=generator)
    lr_image = GAUSS.degradation.linear(hr_image)
    part = hr_image[..., hr_start:hr_stop]
    batch = {
        "data": lr_image[..., hr_start // 2 : hr_stop // 2],
        "valid": torch.ones(2, 1, *part.shape[2:], dtype=torch.bool),
    }
    return JointOutput([], part.clone().requires_grad_()), batch


def test_means_of_pairs_by_hand():
    """LR 1, 5, 7 against 1, 2, 7; the voxel of an invalid HR voxel is left out."""
    output = JointOutput([], torch.tensor([0.0, 2, 4, 6, 7, 7]).reshape(1, 1, 1, 6))
    valid = torch.ones(1, 1, 1, 6, dtype=torch.bool)
    batch = {"data": torch.tensor([1.0, 2, 7]).reshape(1, 1, 1, 3), "valid": valid}
    loss = JointLoss({"lr_consistency": {"weight": 1}}, AREA_2D)
    assert loss(output, batch, 0.0)[0].item() == pytest.approx(1.0)
    valid[..., 0] = False
    assert loss(output, batch, 0.0)[0].item() == pytest.approx(1.5)
    valid[..., 3] = False
    assert loss(output, batch, 0.0)[0].item() == 0


def test_the_true_image_costs_nothing_but_the_borders_do():
    output, batch = crop(10, 30)
    assert max(GAUSS.degradation.margin) > 0
    needed = JointLoss({"lr_consistency": {"weight": 1}}, GAUSS)
    assert needed(output, batch, 0.0)[0].item() == pytest.approx(0, abs=1e-6)
    none = JointLoss({"lr_consistency": {"weight": 1, "margin": 0}}, GAUSS)
    assert none(output, batch, 0.0)[0].item() > 1e-3


def test_unknown_voxels_change_nothing_as_far_as_the_operator_reads():
    output, batch = crop(10, 30)
    loss = JointLoss({"lr_consistency": {"weight": 1}}, GAUSS)
    batch["valid"][0, ..., 11] = False
    changed = output.sr.detach().clone()
    changed[0, ..., 11] += 100
    assert loss(JointOutput([], changed), batch, 0.0)[0].item() == pytest.approx(0, abs=1e-6)


def test_the_gradient_mends_the_image_and_needs_no_hr_image():
    output, batch = crop(10, 30)
    loss = JointLoss({"lr_consistency": {"weight": 1}}, GAUSS)
    sr_image = (output.sr.detach() + 0.1).requires_grad_()
    total, _ = loss(JointOutput([], sr_image), batch, 0.0)
    total.backward()
    assert total.item() == pytest.approx(0.1, rel=1e-4)
    assert (sr_image.grad != 0).any()
    flags = {"has_hr": torch.zeros(2, dtype=torch.bool), "labelled": torch.tensor([True, False])}
    again, _ = loss(JointOutput([], sr_image), {**batch, **flags}, 0.0)
    assert again.item() == total.item()


def test_nothing_valid_is_zero_with_a_gradient():
    output, batch = crop(10, 30)
    batch["valid"][:] = False
    total, _ = JointLoss({"lr_consistency": {"weight": 1}}, GAUSS)(output, batch, 0.0)
    total.backward()
    assert total.item() == 0
    assert (output.sr.grad == 0).all()


def test_patches_within_the_margin_are_refused():
    output, batch = crop(10, 14)
    with pytest.raises(ValueError, match="the LR patch is only"):
        JointLoss({"lr_consistency": {"weight": 1}}, GAUSS)(output, batch, 0.0)


def test_real_pairs_have_no_known_degradation():
    for spec in (None, paired_spec()):
        with pytest.raises(ValueError, match="lr_consistency needs a degradation"):
            JointLoss({"lr_consistency": {"weight": 1}}, context(spec, (2, 1, 2), (1.0, 1.0, 1.0)))


@pytest.mark.parametrize("margin", [-1, 0.5, "2"])
def test_a_margin_is_a_whole_number(margin):
    with pytest.raises(ValueError, match="'margin' of loss term 'lr_consistency'"):
        JointLoss({"lr_consistency": {"weight": 1, "margin": margin}}, GAUSS)


def test_shapes_are_those_of_the_two_grids():
    sr_image, valid = torch.zeros(1, 1, 4, 3, 8), torch.ones(1, 1, 4, 3, 8, dtype=torch.bool)
    value = consistency_loss(
        sr_image,
        torch.ones(1, 1, 2, 3, 4),
        valid,
        degradation=GAUSS.degradation,
        margin=(0, 0, 0),
    )
    assert value.item() == 1
