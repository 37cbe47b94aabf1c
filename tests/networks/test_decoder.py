from __future__ import annotations

import pytest
import torch
from torch import nn

from srseg.networks.decoder import Decoder

FEATURES, STRIDES = (5, 6, 8), ((1, 1, 1), (1, 2, 2), (2, 2, 1))
SHAPES = ((4, 8, 6), (4, 4, 3), (2, 2, 3))


def make_decoder(num_stages: int = 3, *, deep_supervision: bool = True) -> Decoder:
    torch.manual_seed(7)
    options = dict.fromkeys(
        ("norm_op", "norm_op_kwargs", "dropout_op", "dropout_op_kwargs", "nonlin_kwargs")
    )
    return Decoder(
        FEATURES[:num_stages],
        4,
        strides=STRIDES[:num_stages],
        kernel_sizes=[(3, 3, 3)] * num_stages,
        n_conv_per_stage=[1, 2][: num_stages - 1],
        deep_supervision=deep_supervision,
        block_options=options | {"conv_op": nn.Conv3d, "conv_bias": True, "nonlin": nn.LeakyReLU},
    )


def make_skips(num_stages: int = 3) -> list[torch.Tensor]:
    return [
        torch.randn(1, channels, *shape)
        for channels, shape in zip(FEATURES[:num_stages], SHAPES, strict=False)
    ]


def test_every_stage_gives_its_features_finest_first():
    features = make_decoder()(make_skips())
    assert [tuple(f.shape[1:]) for f in features] == [(5, *SHAPES[0]), (6, *SHAPES[1])]


def test_the_finest_features_come_from_all_skips():
    skips = [skip.requires_grad_() for skip in make_skips()]
    make_decoder()(skips)[0].square().sum().backward()
    assert all(skip.grad.abs().sum() > 0 for skip in skips)


def test_one_stage_gives_its_features_back():
    decoder, skips = make_decoder(1), make_skips(1)
    assert decoder(skips) == skips
    assert decoder.deep_supervision_logits(skips) == []


def test_deep_supervision_can_be_switched():
    decoder = make_decoder(deep_supervision=False)
    features = decoder(make_skips())
    assert decoder.deep_supervision_logits(features) == []
    decoder.deep_supervision = True
    logits = decoder.deep_supervision_logits(features)
    assert [tuple(x.shape[1:]) for x in logits] == [(4, *SHAPES[0]), (4, *SHAPES[1])]
    torch.testing.assert_close(logits[1], decoder.seg_layers[0](features[1]))


def test_deep_supervision_is_float32_under_autocast():
    decoder = make_decoder()
    with torch.autocast("cpu", torch.bfloat16):
        features = decoder(make_skips())
        logits = decoder.deep_supervision_logits(features)
    assert features[0].dtype == torch.bfloat16
    assert {x.dtype for x in logits} == {torch.float32}


@pytest.mark.parametrize("deep_supervision", [False, True])
def test_feature_maps_are_counted_as_they_are_put_out(deep_supervision, conv_outputs):
    decoder = make_decoder(deep_supervision=deep_supervision)
    counted = conv_outputs(decoder)
    decoder.deep_supervision_logits(decoder(make_skips()))
    assert decoder.compute_conv_feature_map_size(SHAPES[0]) == sum(counted)


def test_gates_multiply_features_before_anything_reads_them():
    decoder, skips = make_decoder(), make_skips()
    gates = [torch.rand(1, 1, *shape) for shape in SHAPES[:2]]
    plain, gated = decoder(skips), decoder(skips, gates)
    torch.testing.assert_close(gated[1], plain[1] * gates[1])
    merged = torch.cat((decoder.transpconvs[1](gated[1]), skips[0]), 1)
    torch.testing.assert_close(gated[0], decoder.stages[1](merged) * gates[0])
    ones = [torch.ones_like(gate) for gate in gates]
    assert all(torch.equal(a, b) for a, b in zip(decoder(skips, ones), plain, strict=True))


def test_gates_must_be_one_per_stage():
    with pytest.raises(ValueError, match="zip"):
        make_decoder()(make_skips(), [torch.ones(1)])


def test_a_widened_decoder_reads_more_channels_at_the_bottleneck():
    decoder, skips = make_decoder(), make_skips()
    decoder.widen_bottleneck(3)
    skips[-1] = torch.cat((skips[-1], torch.randn(1, 3, *SHAPES[2])), 1).requires_grad_()
    decoder(skips)[0].square().sum().backward()
    assert skips[-1].grad[:, -3:].abs().sum() > 0
    assert decoder.transpconvs[0].bias is not None


def test_one_stage_has_no_bottleneck_to_widen():
    with pytest.raises(ValueError, match="has no bottleneck"):
        make_decoder(1).widen_bottleneck(1)


def test_a_twin_shares_the_build_but_no_weight_and_has_no_logits(conv_outputs):
    decoder, skips = make_decoder(), make_skips()
    twin = decoder.twin()
    assert not {p.data_ptr() for p in twin.parameters()} & {
        p.data_ptr() for p in decoder.parameters()
    }
    counted = conv_outputs(twin)
    features = twin(skips)
    assert [f.shape for f in features] == [f.shape for f in decoder(skips)]
    assert twin.deep_supervision_logits(features) == []
    assert twin.compute_conv_feature_map_size(SHAPES[0]) == sum(counted)
    assert not any("seg_layers" in name for name in twin.state_dict())
    assert decoder.deep_supervision
