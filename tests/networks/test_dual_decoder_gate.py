"""The gates; what the network shares with PFSeg's is in test_two_decoders.py."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from srseg.networks.dual_decoder_gate import Gate
from tests.networks.two_decoders import GATE, PFSEG, fill, random_lr, touched

SCALES = [(2, 2, 2), (1, 2, 2), (3, 1, 1), (2, 3)]


def set_gates(network: nn.Module, bias: float) -> None:
    for gate in [*network.gates, network.hr_stage.gate]:
        nn.init.zeros_(gate.map.weight)
        nn.init.constant_(gate.map.bias, bias)


def test_a_gate_is_the_sigmoid_of_a_product_per_voxel():
    gate, features = Gate(nn.Conv3d, 3), torch.randn(2, 3, 4, 5, 6)
    logit = torch.einsum("bczyx,c->bzyx", features, gate.map.weight.flatten()) + gate.map.bias
    torch.testing.assert_close(gate(features)[:, 0], torch.sigmoid(logit))


@pytest.mark.parametrize("scale", SCALES)
def test_open_gates_leave_two_separate_decoders(make_network, scale):
    network = make_network(scale, 2, network_class=GATE, deep_supervision=True)
    set_gates(network, 100.0)  # sigmoid 1
    plain = make_network(scale, 2, network_class=PFSEG, deep_supervision=True)
    shared = {k: v for k, v in network.state_dict().items() if "gate" not in k}
    plain.load_state_dict(shared)
    for a, b in zip(network(random_lr(network)).seg, plain(random_lr(plain)).seg, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("scale", SCALES)
def test_shut_gates_leave_the_segmentation_no_feature(make_network, scale):
    network = make_network(scale, network_class=GATE, deep_supervision=True)
    nn.init.ones_(network.hr_stage.segmentation.seg_head.bias)
    set_gates(network, -100.0)
    logits, *coarser = network(random_lr(network)).seg
    assert torch.equal(logits, torch.ones_like(logits))  # the head's bias is all that is left
    assert not any(x.any() for x in coarser)


@pytest.mark.parametrize("level", [0, 1, "hr"])
def test_each_gate_acts_on_its_own_grid(make_network, level):
    """Shutting one gate on half of the volume changes the logits of that grid there."""
    network = make_network((1, 2, 2), network_class=GATE, deep_supervision=True).eval()
    gate = network.hr_stage.gate if level == "hr" else network.gates[level]
    expected = network(random_lr(network)).seg
    gate.register_forward_hook(
        lambda _m, _i, out: out * (torch.arange(out.shape[-1]) < out.shape[-1] // 2)
    )
    index = 0 if level == "hr" else 1 + level
    changed = (network(random_lr(network)).seg[index] - expected[index]).abs().amax((0, 1, 2, 3))
    half = len(changed) // 2
    assert (changed[half:] > 0).all()
    assert not changed[:half].any()


def test_gates_read_the_sr_branch_and_the_segmentation_teaches_it(make_network):
    network = make_network((1, 2, 2), network_class=GATE)
    fill(network)
    of_seg = touched(network, network(random_lr(network)).seg[0].square().mean())
    for name in ("sr_decoder.", "gates.0", "gates.1", "hr_stage.gate", "hr_stage.super_resolution"):
        assert of_seg(name)
    assert not of_seg("hr_stage.super_resolution.sr_head")
    of_sr = touched(network, network(random_lr(network)).sr.square().mean())
    assert not any(of_sr(name) for name in ("decoder.", "gates.", "hr_stage.gate"))


def test_the_segmentation_alone_is_the_same(make_network):
    network = make_network((1, 2, 2), network_class=GATE)
    expected = network(random_lr(network)).seg[0]
    network.super_resolves = False
    out = network(random_lr(network))
    assert out.sr is None
    assert torch.equal(out.seg[0], expected)


def test_gates_need_the_sr_branch(make_network):
    with pytest.raises(ValueError, match="so sr_head must be true"):
        make_network((1, 2, 2), network_class=GATE, sr_head=False)


def test_a_gate_adds_one_weight_per_channel_and_a_bias(make_network):
    gated, plain = (make_network((2, 2, 2), network_class=name) for name in (GATE, PFSEG))
    more = sum(p.numel() for p in gated.parameters()) - sum(p.numel() for p in plain.parameters())
    assert more == (5 + 1) + (6 + 1) + (4 + 1)  # two decoder stages and the HR grid
