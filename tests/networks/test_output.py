from __future__ import annotations

import pickle

import torch

from srseg.networks.output import JointOutput, StackOutputs


def test_stacked_is_logits_then_image(make_network):
    network = make_network((1, 2, 2), 2, 3, deep_supervision=True).eval()
    lr_image = torch.randn(1, 2, 4, 8, 12)
    stacked = StackOutputs(network)(lr_image)
    out = network(lr_image)
    assert stacked.shape == (1, 3 + 2, 4, 16, 24)
    assert torch.equal(stacked[:, :3], out.seg[0])
    assert torch.equal(stacked[:, 3:], out.sr)


def test_stacked_is_float32_and_logits_alone_without_sr_head():
    class Halves(torch.nn.Module):
        def forward(self, lr_image):
            return JointOutput([lr_image.half()], None)

    stacked = StackOutputs(Halves())(torch.ones(1, 2, 3, 4, 5))
    assert stacked.dtype == torch.float32
    assert stacked.shape == (1, 2, 3, 4, 5)


def test_stacked_loads_the_weights_of_the_bare_network(make_network):
    trained = make_network((2, 1, 1))
    torch.nn.init.normal_(trained.hr_stage.sr_head.weight)
    view = StackOutputs(make_network((2, 1, 1)))
    view.load_state_dict(trained.state_dict())
    lr_image = torch.randn(1, 1, 4, 8, 12)
    assert torch.equal(view(lr_image)[:, 3:], trained(lr_image).sr)


def test_output_is_a_tuple_that_pickles():
    seg, sr = pickle.loads(pickle.dumps(JointOutput([torch.ones(2)], None)))
    assert torch.equal(seg[0], torch.ones(2))
    assert sr is None
