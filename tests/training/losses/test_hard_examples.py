"""Cross-entropy of hard voxels and with class weights, by hand."""

import math

import pytest
import torch
from nnunetv2.utilities.label_handling.label_handling import LabelManager
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from srseg.networks.output import JointOutput
from srseg.training.losses.hard_examples import hard_mean
from srseg.training.losses.joint import JointLoss, LossContext

LABELS = LabelManager({"background": 0, "a": 1, "b": 2}, None)
IGNORE = LabelManager({"background": 0, "a": 1, "b": 2, "ignore": 3}, None)
REGIONS = LabelManager({"background": 0, "whole": (1, 2), "core": (2,)}, [1, 2])
WEIGHTS = {"weighted_ce": {"weight": 1, "class_weights": [0.4, 0.8, 2]}}


def loss_for(terms, manager=LABELS, ddp=False):
    return JointLoss(terms, LossContext(manager, batch_dice=False, scale=(1, 1), ddp=ddp))


def probabilities(*rows, labels):
    """Logits of (B, K, 1, N) probabilities and a batch with these labels, one sample."""
    logits = torch.tensor(rows).T.log()[None, :, None]
    batch = {
        "target": [torch.tensor(labels).reshape(1, 1, 1, -1)],
        "valid": torch.ones(1, 1, 1, len(labels), dtype=torch.bool),
    }
    return JointOutput([logits.requires_grad_()], None), batch


def test_hard_voxels_by_hand():
    losses = torch.tensor([0.1, 0.3, 0.4, 2.0])  # -ln(0.7) = 0.357
    assert hard_mean(losses, threshold=0.7, min_fraction=0).item() == pytest.approx(1.2)
    assert hard_mean(losses, threshold=0.7, min_fraction=0.5).item() == pytest.approx(1.2)
    assert hard_mean(losses, threshold=0.7, min_fraction=0.51).item() == pytest.approx(0.9)
    assert hard_mean(losses, threshold=0.7, min_fraction=1).item() == pytest.approx(0.7)
    assert hard_mean(losses, threshold=0.01, min_fraction=0).item() == pytest.approx(2.0)


def test_only_hard_voxels_count():
    """True classes at 0.5, 0.8 and 0.25: the second is easy."""
    output, batch = probabilities(
        [0.5, 0.25, 0.25], [0.1, 0.8, 0.1], [0.25, 0.5, 0.25], labels=[0, 1, 2]
    )
    total, _ = loss_for({"ohem_ce": {"weight": 1}})(output, batch, 0.0)
    assert total.item() == pytest.approx((math.log(2) + math.log(4)) / 2)
    total.backward()
    gradient = output.seg[0].grad[0, :, 0]
    assert (gradient[:, 1] == 0).all()
    assert (gradient[:, [0, 2]] != 0).all()


@pytest.mark.parametrize("terms", [{"ohem_ce": {"weight": 1, "min_fraction": 0.5}}, WEIGHTS])
def test_masked_and_ignored_voxels_never_count(terms):
    """The last two are the hardest; of the other two each is half of what counts."""
    rows = [0.5, 0.25, 0.25], [0.1, 0.8, 0.1], [0.01, 0.01, 0.98], [0.98, 0.01, 0.01]
    output, batch = probabilities(*rows, labels=[0, 1, 1, 3])
    batch["valid"][..., 2] = False
    value = loss_for(terms, IGNORE)(output, batch, 0.0)[0].item()
    if "ohem_ce" in terms:
        assert value == pytest.approx(math.log(2))
    else:
        assert value == pytest.approx((0.4 * math.log(2) - 0.8 * math.log(0.8)) / 1.2)


def test_class_weights_are_those_of_torch():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 4, 5, 6, generator=generator)
    target = torch.randint(0, 3, (2, 1, 4, 5, 6), generator=generator)
    batch = {"target": [target], "valid": torch.ones(2, 1, 4, 5, 6, dtype=torch.bool)}
    total, _ = loss_for(WEIGHTS)(JointOutput([logits], None), batch, 0.0)
    expected = cross_entropy(logits, target[:, 0], weight=torch.tensor([0.4, 0.8, 2]))
    assert total.item() == pytest.approx(expected.item(), rel=1e-6)


@pytest.mark.parametrize(
    ("terms", "expected"),
    [
        ({"ohem_ce": {"weight": 1, "min_fraction": 1}}, lambda losses: losses.mean()),
        (
            {"weighted_ce": {"weight": 1, "class_weights": [1, 3]}},
            lambda losses: (losses[:, 0].mean() + 3 * losses[:, 1].mean()) / 4,
        ),
    ],
)
def test_regions_have_binary_cross_entropies(terms, expected):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 2, 5, 6, generator=generator)
    target = torch.rand(2, 2, 5, 6, generator=generator) > 0.5
    batch = {"target": [target], "valid": torch.ones(2, 1, 5, 6, dtype=torch.bool)}
    batch["valid"][..., 3:] = False
    losses = binary_cross_entropy_with_logits(logits, target.float(), reduction="none")[..., :3]
    total, _ = loss_for(terms, REGIONS)(JointOutput([logits], None), batch, 0.0)
    assert total.item() == pytest.approx(expected(losses).item(), rel=1e-6)


@pytest.mark.parametrize("manager", [LABELS, REGIONS])
@pytest.mark.parametrize("unlabelled", [True, False])
def test_nothing_to_count_is_zero_with_a_gradient(manager, unlabelled):
    heads = manager.num_segmentation_heads
    logits = torch.randn(2, heads, 4, 5, requires_grad=True)
    batch = {
        "target": [torch.zeros(2, 2 if manager.has_regions else 1, 4, 5)],
        "valid": torch.full((2, 1, 4, 5), unlabelled),
    }
    if unlabelled:
        batch["labelled"] = torch.zeros(2, dtype=torch.bool)
    terms = {"weighted_ce": {"weight": 1, "class_weights": [1] * heads}, "ohem_ce": {"weight": 1}}
    total, values = loss_for(terms, manager)(JointOutput([logits], None), batch, 0.0)
    total.backward()
    assert [value.item() for value in values.values()] == [0, 0]
    assert (logits.grad == 0).all()


def test_coarser_outputs_have_nnunet_s_weights():
    logits = [torch.zeros(1, 3, 4, 4), torch.zeros(1, 3, 2, 2), torch.zeros(1, 3, 1, 1)]
    logits[1][:, 1] = math.log(2)
    batch = {
        "target": [torch.ones(1, 1, *out.shape[2:]) for out in logits],
        "valid": torch.ones(1, 1, 4, 4, dtype=torch.bool),
    }
    total, _ = loss_for({"ohem_ce": {"weight": 1}})(JointOutput(logits, None), batch, 0.0)
    assert total.item() == pytest.approx(2 / 3 * math.log(3) + 1 / 3 * math.log(2))
    with pytest.raises(ValueError, match="segmentation outputs have shapes"):
        loss_for({"ohem_ce": {"weight": 1}})(JointOutput(logits[:2], None), batch, 0.0)


@pytest.mark.parametrize(
    ("terms", "message"),
    [
        ({"ohem_ce": {"weight": 1, "threshold": 1.0}}, "'threshold' .* is 1.0; allowed: a prob"),
        ({"ohem_ce": {"weight": 1, "min_fraction": 2}}, "'min_fraction' .* is 2; allowed: a share"),
        ({"weighted_ce": {"weight": 1}}, r"lacks the options \['class_weights'\]"),
        ({"weighted_ce": {"weight": 1, "class_weights": [1, -1]}}, r"is \[1, -1\]; allowed: a li"),
        ({"weighted_ce": {"weight": 1, "class_weights": [0, 0, 0]}}, "not all of them 0"),
        ({"weighted_ce": {"weight": 1, "class_weights": [1, 1]}}, "2 class_weights, .* has 3 clas"),
    ],
)
def test_wrong_options_are_named(terms, message):
    with pytest.raises(ValueError, match=message):
        loss_for(terms)
