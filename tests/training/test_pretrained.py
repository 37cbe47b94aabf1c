"""Weights are taken where name and shape agree; what does not fit stays."""

import pytest
import torch
from torch import nn

from srseg.training.checkpoint import save_atomically
from srseg.training.pretrained import load_pretrained_weights


def network(width: int = 3) -> nn.Module:
    module = nn.Module()
    module.first = nn.Linear(2, width)
    module.decoder = nn.Module()
    module.decoder.seg_layers = nn.ModuleList([nn.Linear(2, 2)])
    module.hr_stage = nn.Module()
    module.hr_stage.seg_head = nn.Linear(2, 2)
    return module


def test_matching_tensors_are_taken_and_heads_are_not(tmp_path):
    source, target = network(), network()
    before = target.decoder.seg_layers[0].weight.clone()
    save_atomically({"network_weights": source.state_dict()}, tmp_path / "a.pth")
    assert load_pretrained_weights(target, tmp_path / "a.pth") == 2
    assert torch.equal(target.first.weight, source.first.weight)
    assert torch.equal(target.decoder.seg_layers[0].weight, before)


def test_another_shape_is_left_out(tmp_path):
    save_atomically({"network_weights": network(5).state_dict()}, tmp_path / "a.pth")
    with pytest.raises(ValueError, match="no tensor of .*fits"):
        load_pretrained_weights(network(3), tmp_path / "a.pth")


def test_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nothing.pth"):
        load_pretrained_weights(network(), tmp_path / "nothing.pth")
