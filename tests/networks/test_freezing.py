"""Frozen for good, through all that sets a network's mode, or for a while and then as before."""

import copy
import pickle

import pytest
import torch
from torch import nn

from srseg.networks.freezing import encoder_place, freeze, frozen


def test_it_stays_in_eval_through_everything():
    parent = nn.Sequential(nn.BatchNorm1d(3), nn.Sequential(nn.BatchNorm1d(3)))
    freeze(parent[1])
    parent.train()
    copied = copy.deepcopy(parent)
    for network in (parent, copied.train(), pickle.loads(pickle.dumps(parent)).train()):
        assert network[0].training
        assert not network[1].training
        assert not network[1][0].training


def test_a_network_without_an_encoder_has_no_place_for_one():
    with pytest.raises(ValueError, match="Linear has no encoder to fill by -encoder"):
        encoder_place(nn.Linear(2, 2))


def net() -> nn.Module:
    """A network of which one part is in eval mode and one takes no gradient."""
    module = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.BatchNorm2d(3))
    module[1].eval()
    module[2].weight.requires_grad_(False)
    return module


def state(module: nn.Module) -> list[bool]:
    modes = [part.training for part in module.modules()]
    return modes + [parameter.requires_grad for parameter in module.parameters()]


def test_gradients_pass_and_nothing_stays_on_the_module():
    module, image = net(), torch.randn(2, 2, 5, 7, requires_grad=True)
    before, statistics = state(module), module[2].running_mean.clone()
    with frozen(module):
        assert not any(state(module))
        total = module(image).square().sum()
    total.backward()
    assert (image.grad != 0).any()
    assert all(parameter.grad is None for parameter in module.parameters())
    assert torch.equal(module[2].running_mean, statistics)
    assert state(module) == before


def test_it_comes_back_after_an_error():
    module = net()
    before = state(module)
    with pytest.raises(RuntimeError), frozen(module):
        module(torch.zeros(1, 7, 4, 4))
    assert state(module) == before
