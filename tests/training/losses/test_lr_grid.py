"""`dice_ce` on the LR grid: what most of a block is, and weights that begin there."""

import pytest
import torch
from nnunetv2.utilities.label_handling.label_handling import LabelManager

from srseg.networks.output import JointOutput
from srseg.training.losses.joint import JointLoss, LossContext
from srseg.training.losses.lr_grid import lr_masked_target
from srseg.training.losses.segmentation import MASKED_LABEL, masked_target

LABELS = LabelManager({"background": 0, "a": 1, "b": 2}, None)
REGIONS = LabelManager({"background": 0, "whole": (1, 2), "core": (2,)}, [1, 2])
LR = {"dice_ce": {"weight": 1, "grid": "lr"}}
HR = {"dice_ce": {"weight": 1}}


def test_the_largest_share_wins():
    rows = [[2, 2, 1, 2, 0, 0, -1, -1, -1, -1], [2, 0, 1, 2, 2, 1, 2, 2, -1, 1]]
    target = torch.tensor(rows).reshape(1, 1, 2, 10)
    found = lr_masked_target(target, (2, 2), LABELS)
    assert found.flatten().tolist() == [2, 1, 0, MASKED_LABEL, MASKED_LABEL]
    one_slice = lr_masked_target(target[:, :, None], (1, 2, 2), LABELS)
    assert torch.equal(one_slice[:, :, 0], found)


def test_the_first_voxel_decides_between_equal_shares():
    rows = [[2, 1, 1, 1, 0, 0, 0, 2, 2, 2], [1, 2, 0, 0, 1, 1, 1, 1, 0, 0]]
    target = torch.tensor(rows).reshape(1, 1, 2, 10)
    assert lr_masked_target(target, (2, 2), LABELS).flatten().tolist() == [2, 1, 0, 1, 2]
    masked_first = torch.tensor([-1, 2, 2, 1, 1, 0]).reshape(1, 1, 1, 6)
    assert lr_masked_target(masked_first, (1, 6), LABELS).flatten().tolist() == [1]  # the lower
    region = torch.tensor([[1, 0, 0, 1, 1, 0], [0, 0, 0, 0, 1, 0]], dtype=torch.bool)
    masked = torch.tensor([[0, 0, 0, 0, 0, 0]], dtype=torch.bool)
    ties = torch.cat((region, masked)).reshape(1, 3, 1, 6)
    found = lr_masked_target(ties, (1, 2), REGIONS)[0, :, 0]
    assert found[:2].tolist() == [[True, False, True], [False, False, True]]


@pytest.mark.parametrize("manager", [LABELS, REGIONS])
def test_ties_keep_volumes(manager):
    """With ties for the background this is 0.92."""
    generator = torch.Generator().manual_seed(3)
    axes = torch.stack(torch.meshgrid(*[torch.arange(20.0)] * 3, indexing="ij"))
    hr_volume = lr_volume = 0
    for _ in range(20):
        centre = 9 + 2 * torch.rand(3, 1, 1, 1, generator=generator)
        ball = (axes - centre).square().sum(0, keepdim=True)[None] < 6.3**2
        target = torch.cat((ball, ball, ~ball & ball), 1) if manager.has_regions else ball.long()
        lr_target = lr_masked_target(target, (2, 2, 2), manager)[:, :1]
        hr_volume, lr_volume = hr_volume + int(ball.sum()), lr_volume + 8 * int(lr_target.sum())
    assert lr_volume / hr_volume == pytest.approx(1, abs=0.02)


def test_a_majority_of_what_counts_wins():
    target = torch.tensor([-1, 2, 2, 0, 2, 1, -1, 1]).reshape(1, 1, 1, 8)
    assert lr_masked_target(target, (1, 4), LABELS).flatten().tolist() == [2, 1]


def test_regions_need_more_than_half():
    whole = torch.tensor([1, 1, 1, 0, 1, 1, 0, 0, 1, 1, 1, 1], dtype=torch.bool)
    core = torch.tensor([0, 0, 1, 0, 1, 0, 0, 0, 0, 1, 1, 1], dtype=torch.bool)
    masked = torch.tensor([0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 0, 0], dtype=torch.bool)
    target = torch.stack([whole, core, masked]).reshape(1, 3, 1, 12)
    found = lr_masked_target(target, (1, 4), REGIONS)[0, :, 0]
    assert found[0, :2].tolist() == [True, True]  # 3 of 4, 2 of the 3 that count
    assert found[1, :2].tolist() == [False, False]
    assert found[2].tolist() == [False, False, True]


def example(manager, samples=2):
    generator = torch.Generator().manual_seed(0)
    shapes = [(4, 6, 8), (4, 3, 4), (2, 3, 2), (1, 3, 1)]
    logits = [
        torch.randn(samples, manager.num_segmentation_heads, *shape, generator=generator)
        for shape in shapes
    ]
    channels = 2 if manager.has_regions else 1
    targets = [
        torch.randint(0, 2, (samples, channels, *shape), generator=generator) for shape in shapes
    ]
    valid = torch.ones(samples, 1, *shapes[0], dtype=torch.bool)
    return JointOutput([out.requires_grad_() for out in logits], None), {
        "target": targets,
        "valid": valid,
    }


@pytest.mark.parametrize("manager", [LABELS, REGIONS])
@pytest.mark.parametrize("labelled", [None, [True, False]])
def test_the_lr_output_is_the_finest_one_then(manager, labelled):
    """The same as a network on the LR grid with LR targets."""
    context = LossContext(manager, batch_dice=False, scale=(1, 2, 2))
    output, batch = example(manager)
    if labelled is not None:
        batch["labelled"] = torch.tensor(labelled)
    total, _ = JointLoss(LR, context)(output, batch, 0.0)
    total.backward()
    finest = masked_target(batch["target"][0], batch["valid"], manager)
    lr_target = lr_masked_target(finest, (1, 2, 2), manager)
    lr_batch = {
        **batch,
        "target": [lr_target[:, :2] if manager.has_regions else lr_target, *batch["target"][2:]],
        "valid": torch.ones(2, 1, 4, 3, 4, dtype=torch.bool),
    }
    lr_output = JointOutput(output.seg[1:], None)
    expected = JointLoss(HR, context)(lr_output, lr_batch, 0.0)[0].item()
    assert total.item() == pytest.approx(expected, rel=1e-6)
    assert output.seg[0].grad is None
    assert all((out.grad != 0).any() for out in output.seg[1:3])


def test_voxels_that_do_not_count_change_nothing():
    context = LossContext(LABELS, batch_dice=False, scale=(1, 2, 2))
    output, batch = example(LABELS)
    batch["valid"][..., 4:] = False
    loss = JointLoss(LR, context)
    expected = loss(output, batch, 0.0)[0].item()
    batch["target"][0][..., 4:] = 2
    assert loss(output, batch, 0.0)[0].item() == expected
    batch["valid"][:] = False
    assert torch.isfinite(loss(output, batch, 0.0)[0])


def test_no_labelled_sample_is_zero_with_a_gradient():
    context = LossContext(LABELS, batch_dice=False, scale=(1, 2, 2))
    output, batch = example(LABELS)
    total, _ = JointLoss(LR, context)(
        output, {**batch, "labelled": torch.zeros(2, dtype=torch.bool)}, 0.0
    )
    total.backward()
    assert total.item() == 0
    assert (output.seg[1].grad == 0).all()


def test_ddp_gives_every_output_a_gradient():
    context = LossContext(LABELS, batch_dice=False, scale=(1, 2, 2), ddp=True)
    output, batch = example(LABELS)
    JointLoss(LR, context)(output, batch, 0.0)[0].backward()
    assert all(out.grad is not None for out in output.seg)
    assert (output.seg[0].grad == 0).all()


@pytest.mark.parametrize("keep", [slice(0, 1), slice(0, 4, 2)])
def test_a_network_without_output_on_the_lr_grid_is_refused(keep):
    context = LossContext(LABELS, batch_dice=False, scale=(1, 2, 2))
    output, batch = example(LABELS)
    batch["target"] = batch["target"][keep]
    with pytest.raises(ValueError, match=r"second segmentation output of shape \(4, 3, 4\)"):
        JointLoss(LR, context)(JointOutput(output.seg[keep], None), batch, 0.0)


def test_an_unknown_grid_is_named():
    context = LossContext(LABELS, batch_dice=False, scale=(1, 2, 2))
    with pytest.raises(ValueError, match="'grid' of loss term 'dice_ce' is 'sr'; allowed: one of"):
        JointLoss({"dice_ce": {"weight": 1, "grid": "sr"}}, context)
