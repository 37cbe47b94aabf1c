"""PFSeg's two losses by hand, in 2-D and 3-D, with the normalisers they should have."""

import pytest
import torch
from nnunetv2.utilities.label_handling.label_handling import LabelManager

from srseg.networks.output import JointOutput
from srseg.training.losses.joint import JointLoss, LossContext
from srseg.training.losses.pfseg import cell_sums, fused_products
from tests.training.losses.test_gram import explicit

LABELS = LabelManager({"background": 0, "a": 1, "b": 2}, None)
BINARY = LabelManager({"background": 0, "a": 1}, None)
REGIONS = LabelManager({"background": 0, "whole": (1, 2), "core": (2,)}, [1, 2])
TERMS = {"target_enhanced": {"weight": 1}, "similarity": {"weight": 1, "pool": 2}}


def loss_for(manager, terms=TERMS):
    return JointLoss(terms, LossContext(manager, batch_dice=False, scale=(2, 2, 2)))


def example(manager, shape, samples=2, channels=2):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(samples, manager.num_segmentation_heads, *shape, generator=generator)
    sr_image = 3 * torch.randn(samples, channels, *shape, generator=generator) + 5
    own = 2 if manager.has_regions else 1
    batch = {
        "target": [torch.randint(0, 2, (samples, own, *shape), generator=generator)],
        "hr": 3 * torch.randn(samples, channels, *shape, generator=generator) + 5,
        "valid": torch.ones(samples, 1, *shape, dtype=torch.bool),
    }
    return JointOutput([logits.requires_grad_()], sr_image.requires_grad_()), batch


def by_hand(output, batch, manager, pool):
    """Both losses as written in the paper, with matrices, for whole cells without a mask."""
    low, high = (
        end(batch["hr"].movedim(1, 0).flatten(1), 1).values for end in (torch.min, torch.max)
    )
    shape = (1, -1, *(1,) * (output.sr.ndim - 2))
    sr_image, hr_image = (
        (image - low.reshape(shape)) / (high - low).reshape(shape)
        for image in (output.sr, batch["hr"])
    )
    target = batch["target"][0]
    if manager.has_regions:
        probabilities, truth = output.seg[0].sigmoid(), target.float()
    else:
        probabilities = output.seg[0].softmax(1)[:, 1:]
        truth = torch.cat([target == c for c in (1, 2)], 1).float()
    pooling = torch.nn.functional.avg_pool3d
    enhanced = similarity = 0
    for c in range(truth.shape[1]):
        own, true = probabilities[:, c : c + 1] * sr_image, truth[:, c : c + 1] * hr_image
        enhanced = enhanced + ((own - true) ** 2).mean()
        f, g = (pooling(x, pool).flatten(2) for x in (own, true))
        similarity = similarity + (explicit(f, g) / f.shape[2] ** 2).mean()
    return enhanced, similarity


@pytest.mark.parametrize("manager", [LABELS, REGIONS])
def test_both_are_what_the_paper_writes(manager):
    output, batch = example(manager, (4, 6, 5))
    total, values = loss_for(manager)(output, batch, 0.0)
    enhanced, similarity = by_hand(output, batch, manager, 2)
    assert values["target_enhanced"].item() == pytest.approx(enhanced.item(), rel=1e-5)
    assert values["similarity"].item() == pytest.approx(similarity.item(), rel=1e-5)
    leaves = output.seg[0], output.sr
    ours = torch.autograd.grad(total, leaves)
    for gradient, expected in zip(
        ours, torch.autograd.grad(enhanced + similarity, leaves), strict=True
    ):
        torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-7)
        assert (gradient != 0).any()


@pytest.mark.parametrize("samples", [1, 3])
@pytest.mark.parametrize("shape", [(4, 8, 6), (8, 4)])
def test_a_wholly_wrong_foreground_costs_one_whatever_the_size(samples, shape):
    """Everything is predicted, the image is 1, nothing is there: every pair of cells differs by 1.

    Divided by (h w)^2 and summed over the batch, as published, the similarity would be 4 and 12
    for two cells of depth.
    """
    logits = torch.zeros(samples, 2, *shape)
    logits[:, 1] = 100
    hr_image = torch.ones(samples, 1, *shape)
    hr_image.flatten(2)[..., -1] = 0  # for the range
    batch = {
        "hr": hr_image,
        "target": [torch.zeros(samples, 1, *shape)],
        "valid": torch.ones(samples, 1, *shape, dtype=torch.bool),
    }
    output = JointOutput([logits], torch.ones(samples, 1, *shape))
    values = loss_for(BINARY)(output, batch, 0.0)[1]
    assert values["similarity"].item() == pytest.approx(1)
    assert values["target_enhanced"].item() == pytest.approx(1)


@pytest.mark.parametrize("shape", [(4, 6, 4), (6, 4)])
def test_a_perfect_result_costs_nothing(shape):
    _, batch = example(BINARY, shape)
    logits = 200 * (torch.cat([1 - batch["target"][0], batch["target"][0]], 1) - 0.5)
    values = loss_for(BINARY)(JointOutput([logits], batch["hr"]), batch, 0.0)[1]
    assert values["target_enhanced"].item() == pytest.approx(0, abs=1e-12)
    assert values["similarity"].item() == pytest.approx(0, abs=1e-7)


def test_only_known_voxels_count():
    """Cells are means over what counts; those without any are no cells."""
    output, batch = example(LABELS, (4, 4, 6))
    loss = loss_for(LABELS)
    batch["valid"][..., 4:] = False
    cut = JointOutput([output.seg[0][..., :4]], output.sr[..., :4])
    part = {
        "target": [batch["target"][0][..., :4]],
        "hr": batch["hr"][..., :4],
        "valid": batch["valid"][..., :4],
    }
    values, expected = loss(output, batch, 0.0)[1], loss(cut, part, 0.0)[1]
    for name, value in values.items():
        assert value.item() == pytest.approx(expected[name].item(), rel=1e-5)


@pytest.mark.parametrize("flag", ["labelled", "has_hr"])
def test_samples_without_a_truth_do_not_count(flag):
    output, batch = example(LABELS, (4, 4, 6), samples=3)
    keep = torch.tensor([True, False, True])
    cut = JointOutput([output.seg[0][keep]], output.sr[keep])
    part = {
        "target": [batch["target"][0][keep]],
        "hr": batch["hr"][keep],
        "valid": batch["valid"][keep],
    }
    # the range is that of the batch's HR images, which unlabelled samples have too
    batch["hr"][1] = batch["hr"][0]
    values, expected = (
        loss_for(LABELS)(output, {**batch, flag: keep}, 0.0)[1],
        loss_for(LABELS)(cut, part, 0.0)[1],
    )
    for name, value in values.items():
        assert value.item() == pytest.approx(expected[name].item(), rel=1e-5)


def test_nothing_known_is_zero_with_a_gradient():
    output, batch = example(LABELS, (4, 4, 6))
    total, values = loss_for(LABELS)(
        output, {**batch, "labelled": torch.zeros(2, dtype=torch.bool)}, 0.0
    )
    total.backward()
    assert [value.item() for value in values.values()] == [0, 0]
    assert (output.seg[0].grad == 0).all()
    assert (output.sr.grad == 0).all()


def test_the_ignore_label_does_not_count():
    manager = LabelManager({"background": 0, "a": 1, "ignore": 2}, None)
    output, batch = example(BINARY, (2, 4, 4))
    batch["target"][0][..., 2:] = 2
    masked = {**batch, "valid": batch["valid"].clone()}
    masked["valid"][..., 2:] = False
    masked["target"] = [batch["target"][0].clamp_max(1)]
    _, counted = fused_products(output, batch, manager)
    assert not counted[..., 2:].any()
    terms = {"target_enhanced": {"weight": 1}}
    # the range is that of all valid voxels, ignored ones included: they have an HR image
    batch["hr"][..., 2:] = batch["hr"][..., :2]
    ignored = loss_for(manager, terms)(output, batch, 0.0)[0].item()
    assert ignored == pytest.approx(loss_for(BINARY, terms)(output, masked, 0.0)[0].item())


@pytest.mark.parametrize("shape", [(7, 5, 9), (5, 9)])
def test_cells_are_those_of_average_pooling(shape):
    image = torch.rand(2, 3, *shape)
    pooling = torch.nn.functional.avg_pool3d if len(shape) == 3 else torch.nn.functional.avg_pool2d
    expected = pooling(image, 2).flatten(2) * 2 ** len(shape)
    torch.testing.assert_close(cell_sums(image, 2), expected)
    assert cell_sums(image, 100).shape == (2, 3, 1)


@pytest.mark.parametrize("pool", [0, 2.5, None])
def test_the_pool_is_a_whole_number(pool):
    with pytest.raises(ValueError, match="'pool' of loss term 'similarity' is"):
        loss_for(LABELS, {"similarity": {"weight": 1, "pool": pool}})
