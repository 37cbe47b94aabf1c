"""A frozen segmenter judges the SR image: gradient to the image, none to the segmenter."""

import pytest
import torch
from nnunetv2.utilities.label_handling.label_handling import LabelManager
from torch import nn
from torch.nn.functional import interpolate

from srseg.networks.output import JointOutput
from srseg.training.losses.hard_examples import ohem_loss
from srseg.training.losses.joint import JointLoss, LossContext

LABELS = LabelManager({"background": 0, "a": 1}, None)
CONTEXT = LossContext(LABELS, batch_dice=False, scale=(1, 1, 1))
TERMS = {"semantic": {"weight": 2, "threshold": 0.6, "min_fraction": 0.25}}


class Net(nn.Module):
    """A segmenter whose result is given in one of the allowed forms."""

    def __init__(self, ndim, form=list):
        super().__init__()
        conv, norm = (nn.Conv3d, nn.BatchNorm3d) if ndim == 3 else (nn.Conv2d, nn.BatchNorm2d)
        torch.manual_seed(0)
        self.body = nn.Sequential(conv(1, 4, 3, padding=1), norm(4), nn.Dropout(0.5))
        self.head, self.aux = conv(4, 2, 1), conv(4, 2, 1, stride=2)
        self.form = form

    def forward(self, image):
        features = self.body(image)
        if self.form is torch.Tensor:
            return self.head(features)
        logits = [self.head(features), self.aux(features)]
        return JointOutput(logits, None) if self.form is JointOutput else logits


def example(shape):
    generator = torch.Generator().manual_seed(0)
    sr_image = torch.randn(2, 1, *shape, generator=generator).requires_grad_()
    batch = {
        "target": [torch.randint(0, 2, (2, 1, *shape), generator=generator)],
        "valid": torch.ones(2, 1, *shape, dtype=torch.bool),
    }
    return JointOutput([], sr_image), batch


@pytest.mark.parametrize("shape", [(4, 5, 6), (5, 6)])
def test_main_and_auxiliary_logits_by_hand(shape):
    net, (output, batch) = Net(len(shape)), example(shape)
    loss = JointLoss(TERMS, CONTEXT)
    loss.set_segmenter(net)
    total, values = loss(output, batch, 0.0)
    net.eval()
    main, aux = net(output.sr)
    aux = interpolate(aux, size=shape, mode="trilinear" if len(shape) == 3 else "bilinear")
    hard = {"threshold": 0.6, "min_fraction": 0.25}
    target = batch["target"][0]
    expected = ohem_loss(main, target, LABELS, **hard) + 0.1 * ohem_loss(
        aux, target, LABELS, **hard
    )
    assert values["semantic"].item() == pytest.approx(expected.item(), rel=1e-6)
    assert total.item() == pytest.approx(2 * expected.item(), rel=1e-6)


@pytest.mark.parametrize("form", [torch.Tensor, list, JointOutput])
def test_only_the_image_gets_a_gradient_and_the_net_stays(form):
    net, (output, batch) = Net(3, form), example((4, 5, 6))
    net.aux.weight.requires_grad_(False)
    net.body[1].eval()
    statistics = net.body[1].running_mean.clone()
    loss = JointLoss(TERMS, CONTEXT)
    loss.set_segmenter(net)
    loss(output, batch, 0.0)[0].backward()
    assert torch.isfinite(output.sr.grad).all()
    assert (output.sr.grad != 0).any()
    assert all(parameter.grad is None for parameter in net.parameters())
    assert net.head.weight.requires_grad
    assert not net.aux.weight.requires_grad
    assert net.training
    assert not net.body[1].training
    assert torch.equal(net.body[1].running_mean, statistics)
    assert not list(loss.parameters())


def test_unlabelled_samples_do_not_count():
    net, (output, batch) = Net(3), example((4, 5, 6))
    loss = JointLoss(TERMS, CONTEXT)
    loss.set_segmenter(net)
    batch["labelled"] = torch.tensor([True, False])
    loss(output, batch, 0.0)[0].backward()
    assert (output.sr.grad[1] == 0).all()
    assert (output.sr.grad[0] != 0).any()
    output, _ = example((4, 5, 6))
    total, _ = loss(output, {**batch, "labelled": torch.zeros(2, dtype=torch.bool)}, 0.0)
    total.backward()
    assert total.item() == 0
    assert (output.sr.grad == 0).all()


def test_nothing_is_computed_while_the_weight_is_zero():
    output, batch = example((4, 5, 6))
    loss = JointLoss({"semantic": {"weight": {"per_round": 1}}}, CONTEXT)
    total, values = loss(output, batch, 0.0, round=0)
    total.backward()
    assert values["semantic"].item() == 0
    assert (output.sr.grad == 0).all()
    with pytest.raises(ValueError, match="'semantic' has no segmenter"):
        loss(output, batch, 0.0, round=1)


def test_logits_must_be_on_the_hr_grid():
    output, batch = example((4, 5, 6))
    loss = JointLoss(TERMS, CONTEXT)
    loss.set_segmenter(nn.MaxPool3d(2))
    with pytest.raises(ValueError, match=r"logits of shape \(2, 2, 3\) for an SR image of"):
        loss(output, batch, 0.0)


def test_a_loss_without_the_term_takes_a_segmenter_too():
    loss = JointLoss({"sr_l1": {"weight": 1}}, CONTEXT)
    loss.set_segmenter(Net(3))
    assert not loss.state_dict()
