"""Frozen for good, through everything that sets a network's mode."""

import copy
import pickle

import pytest
from torch import nn

from srseg.networks.freezing import encoder_place, freeze


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
