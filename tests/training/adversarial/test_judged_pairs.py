"""A discriminator can tell two sides apart by their content alone."""

import pytest
import torch
from nnunetv2.utilities.label_handling.label_handling import LabelManager

from srseg.training.adversarial.judged_pairs import MASKS, image_pair, segmentation_pair

PLAIN = LabelManager({"background": 0, "a": 1, "b": 2}, None)
IGNORE = LabelManager({"background": 0, "a": 1, "b": 2, "ignore": 3}, None)
REGIONS = LabelManager({"background": 0, "whole": [1, 2], "core": 2, "ignore": 3}, [1, 2])
SHAPE = (2, 3, 5, 7)  # batch and three axes
KNOWN = torch.ones(2, 1, *SHAPE[1:], dtype=torch.bool)


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def sides(logits, truth, manager, masks, known=KNOWN):
    return segmentation_pair(logits, truth, known, manager, masks)


def case(manager: LabelManager, confidence: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits and the target that decides as they do."""
    logits = confidence * random(2, manager.num_segmentation_heads, *SHAPE[1:])
    if manager.has_regions:
        return logits, torch.cat((logits > 0, torch.zeros_like(KNOWN)), 1)
    return logits, logits.argmax(1, keepdim=True)


@pytest.mark.parametrize("masks", MASKS)
@pytest.mark.parametrize("manager", [PLAIN, IGNORE, REGIONS], ids=["plain", "ignore", "regions"])
@pytest.mark.parametrize("confidence", [0.01, 1.0, 50.0])
def test_the_same_content_is_the_same_whatever_the_confidence(manager, masks, confidence):
    real, made = sides(*case(manager, confidence), manager, masks)
    assert torch.equal(real, made)
    assert real.shape == (2, manager.num_segmentation_heads, *SHAPE[1:])
    if masks == "straight_through":
        assert set(made.unique().tolist()) == {0.0, 1.0}


@pytest.mark.parametrize("masks", MASKS)
@pytest.mark.parametrize("manager", [PLAIN, REGIONS], ids=["plain", "regions"])
def test_where_the_content_differs_the_real_side_decides_for_the_truth(manager, masks):
    logits, _ = case(manager, 1.0)
    _, truth = case(manager, -1.0)  # regions: everywhere the opposite
    real, made = sides(logits, truth, manager, masks)
    if manager.has_regions:
        assert torch.equal(real > 0.5, truth[:, :-1])
        assert torch.equal(made > 0.5, logits > 0)
        torch.testing.assert_close(real, 1 - made)
    else:
        assert torch.equal(real.argmax(1, keepdim=True), truth)
        assert torch.equal(made.argmax(1), logits.argmax(1))
        # one voxel of one side has the very numbers of the other's
        assert torch.equal(real.sort(1).values, made.sort(1).values)


@pytest.mark.parametrize("masks", MASKS)
@pytest.mark.parametrize("manager", [IGNORE, REGIONS], ids=["ignore", "regions"])
def test_places_without_a_truth_are_zero_on_both_sides_and_pass_no_gradient(manager, masks):
    logits, truth = case(manager, 1.0)
    known = random(*KNOWN.shape, seed=1) > 0
    ignored = torch.zeros_like(KNOWN)
    ignored[0, :, 1, 2:4] = True
    if manager.has_regions:
        truth[:, -1:] = ignored
    else:
        truth[ignored] = 3
    logits.requires_grad_(True)
    real, made = sides(logits, truth, manager, masks, known)
    hidden = (~known | ignored).expand_as(made)
    assert not real[hidden].any()
    assert not made[hidden].any()
    assert real[~hidden].any()
    (made * random(*made.shape, seed=2)).sum().backward()
    assert not logits.grad[hidden].any()
    assert (logits.grad[~hidden] != 0).all()


@pytest.mark.parametrize("manager", [PLAIN, REGIONS], ids=["plain", "regions"])
def test_a_straight_through_gradient_is_that_of_the_probabilities(manager):
    logits, truth = case(manager, 1.0)
    weights = random(*logits.shape, seed=2)
    gradients = []
    for masks in MASKS:
        leaf = logits.clone().requires_grad_(True)
        (sides(leaf, truth, manager, masks)[1] * weights).sum().backward()
        gradients.append(leaf.grad)
    torch.testing.assert_close(gradients[0], gradients[1])


def test_the_real_side_has_no_gradient():
    logits, truth = case(PLAIN, 1.0)
    for masks in MASKS:
        real, made = sides(logits.requires_grad_(True), truth, PLAIN, masks)
        assert made.requires_grad
        assert not real.requires_grad


def test_unknown_masks_are_named():
    with pytest.raises(ValueError, match="unknown masks 'soft'.*straight_through, softened"):
        sides(*case(PLAIN, 1.0), PLAIN, "soft")


def test_an_image_that_is_not_there_is_zero_on_both_sides():
    sr_image, hr_image = random(2, 2, *SHAPE[1:]).requires_grad_(True), random(2, 2, *SHAPE[1:])
    known = random(*KNOWN.shape, seed=1) > 0
    real, made = image_pair(sr_image, hr_image.masked_fill(~known, float("nan")), known)
    inside = known.expand_as(real)
    assert torch.equal(real[inside], hr_image[inside])
    assert torch.equal(made[inside], sr_image[inside])
    assert not real[~inside].any()
    assert not made[~inside].any()
    made.sum().backward()
    assert torch.equal(sr_image.grad, inside.float())
