"""Samples without labels or without an HR image count nowhere."""

import math

import pytest
import torch
import torch.distributed as dist
from nnunetv2.utilities.label_handling.label_handling import LabelManager

from srseg.networks.output import JointOutput
from srseg.training.losses.counted import hr_truth, labelled_valid, zero_of
from srseg.training.losses.joint import JointLoss, LossContext

LABELS = LabelManager({"background": 0, "a": 1, "b": 2}, None)
REGIONS = LabelManager({"background": 0, "whole": (1, 2), "core": (2,)}, [1, 2])
SHAPE = (3, 4, 5)


def example(manager, samples=3):
    generator = torch.Generator().manual_seed(0)
    heads = manager.num_segmentation_heads
    logits = [
        torch.randn(samples, heads, *SHAPE, generator=generator),
        torch.randn(samples, heads, 3, 2, 5, generator=generator),
    ]
    channels = 2 if manager.has_regions else 1
    targets = [
        torch.randint(0, 2, (samples, channels, *out.shape[2:]), generator=generator)
        for out in logits
    ]
    batch = {
        "target": targets,
        "hr": torch.randn(samples, 2, *SHAPE, generator=generator),
        "valid": torch.rand(samples, 1, *SHAPE, generator=generator) > 0.2,
    }
    sr_image = torch.randn(samples, 2, *SHAPE, generator=generator)
    return JointOutput(logits, sr_image), batch


def part(output, batch, keep):
    """The same batch with the samples `keep` alone."""
    some = {
        key: [one[keep] for one in value] if isinstance(value, list) else value[keep]
        for key, value in batch.items()
    }
    return JointOutput([out[keep] for out in output.seg], output.sr[keep]), some


@pytest.mark.parametrize("manager", [LABELS, REGIONS])
@pytest.mark.parametrize("batch_dice", [False, True])
def test_the_mean_is_over_labelled_samples_alone(manager, batch_dice):
    """A masked sample has a perfect Dice of nothing: it must not be in the mean."""
    context = LossContext(manager, batch_dice=batch_dice, scale=(1, 1, 1))
    loss = JointLoss({"dice_ce": {"weight": 1}}, context)
    output, batch = example(manager)
    labelled = torch.tensor([True, False, True])
    expected = loss(*part(output, batch, labelled), 0.0)[0]
    value = loss(output, {**batch, "labelled": labelled}, 0.0)[0]
    assert value.item() == pytest.approx(expected.item(), rel=1e-6)
    assert loss(output, batch, 0.0)[0].item() != pytest.approx(expected.item())


def test_flags_that_are_all_true_change_no_bit():
    context = LossContext(LABELS, batch_dice=False, scale=(1, 1, 1))
    loss = JointLoss({"dice_ce": {"weight": 1}, "sr_l1": {"weight": 1}}, context)
    output, batch = example(LABELS)
    everybody = torch.ones(3, dtype=torch.bool)
    flags = {"labelled": everybody, "has_hr": everybody}
    assert torch.equal(loss(output, {**batch, **flags}, 0.0)[0], loss(output, batch, 0.0)[0])


@pytest.mark.parametrize("batch_dice", [False, True])
def test_a_batch_without_labels_gives_zero_and_a_gradient_of_zeros(batch_dice):
    context = LossContext(LABELS, batch_dice=batch_dice, scale=(1, 1, 1))
    loss = JointLoss({"dice_ce": {"weight": 1}}, context)
    output, batch = example(LABELS)
    for out in output.seg:
        out.requires_grad_()
    batch["labelled"] = torch.zeros(3, dtype=torch.bool)
    total, values = loss(output, batch, 0.0)
    total.backward()
    assert values["dice_ce"].item() == 0
    assert all((out.grad == 0).all() for out in output.seg)


def test_samples_without_hr_image_may_hold_anything():
    context = LossContext(LABELS, batch_dice=False, scale=(1, 1, 1))
    loss = JointLoss({"sr_l1": {"weight": 1}}, context)
    output, batch = example(LABELS)
    has_hr = torch.tensor([True, False, True])
    expected = loss(*part(output, batch, has_hr), 0.0)[0]
    batch["hr"][1] = float("nan")
    output.sr.requires_grad_()
    total = loss(output, {**batch, "has_hr": has_hr}, 0.0)[0]
    total.backward()
    assert total.item() == pytest.approx(expected.item(), rel=1e-6)
    assert (output.sr.grad[1] == 0).all()
    assert (output.sr.grad[0] != 0).any()


def test_masks_by_hand():
    valid = torch.tensor([[True, False], [True, True]]).reshape(2, 1, 2, 1)
    batch = {"valid": valid, "hr": torch.ones(2, 3, 2, 1)}
    assert labelled_valid(batch) is valid
    assert hr_truth(batch)[0] is batch["hr"]
    flags = torch.tensor([True, False])
    assert labelled_valid({**batch, "labelled": flags}).flatten().tolist() == [True] + [False] * 3
    hr_image, counted = hr_truth({**batch, "has_hr": flags})
    assert counted.flatten().tolist() == [True] + [False] * 3
    assert hr_image.sum(dim=(1, 2, 3)).tolist() == [6, 0]


def test_zero_of_reaches_every_output():
    outputs = [torch.ones(2, 3, requires_grad=True), torch.ones(4, requires_grad=True)]
    zero = zero_of(*outputs)
    zero.backward()
    assert zero.item() == 0
    assert all(math.isclose(out.grad.abs().sum().item(), 0) for out in outputs)


@pytest.fixture
def one_process(tmp_path):
    """A process group of one, over which Dice is gathered."""
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.parametrize("grid", ["hr", "lr"])
def test_gathered_dice_counts_the_same_samples(one_process, grid):
    terms = {"dice_ce": {"weight": 1, "grid": grid}}
    output, batch = example(LABELS)
    for labelled in ([True, False, True], [False] * 3):
        values = [
            JointLoss(terms, LossContext(LABELS, batch_dice=True, scale=(1, 2, 1), ddp=ddp))(
                output, {**batch, "labelled": torch.tensor(labelled)}, 0.0
            )[0].item()
            for ddp in (True, False)
        ]
        assert values[0] == pytest.approx(values[1], abs=1e-4)  # keep_all: the coarsest gets 1e-6
