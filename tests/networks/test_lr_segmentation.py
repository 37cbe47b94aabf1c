from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from srseg.geometry.separable import resample
from srseg.networks.build import build_network
from srseg.networks.joint_unet import deep_supervision_scales
from srseg.networks.lr_segmentation import LRSegmentation, ProbabilityUpsampling

SHAPE = (4, 8, 12)
SCALES = [(2, 2, 2), (1, 2, 2), (3, 1, 1), (1, 1, 1), (2, 3)]


@pytest.fixture
def make(architecture) -> Callable[..., LRSegmentation]:
    """A function that builds a seeded network from the plans alone."""

    def build(
        scale: tuple[int, ...],
        channels: int = 1,
        *,
        deep_supervision: bool = False,
        **changes: Any,
    ) -> LRSegmentation:
        planned = architecture(len(scale), scale=list(scale), **changes)
        planned["network_class_name"] = "srseg.networks.lr_segmentation.LRSegmentation"
        torch.manual_seed(3)
        return build_network(planned, channels, 3, deep_supervision=deep_supervision)

    return build


def random_lr(network: LRSegmentation) -> torch.Tensor:
    shape = (2, network.input_channels, *SHAPE[-len(network.scale) :])
    return torch.randn(shape, generator=torch.Generator().manual_seed(11))


def hr_shape(scale: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(n * s for n, s in zip(SHAPE[-len(scale) :], scale, strict=True))


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("channels", [1, 2])
def test_outputs_follow_their_scales(make, scale, channels):
    network = make(scale, channels, deep_supervision=True)
    out = network(random_lr(network))
    expected = [
        [round(n * r) for n, r in zip(hr_shape(scale), relative, strict=True)]
        for relative in network.output_scales
    ]
    assert [list(x.shape[2:]) for x in out.seg] == expected
    strides = [[1] * len(scale), *network.decoder.strides[1:]]
    assert network.output_scales == deep_supervision_scales(strides, scale)
    assert out.sr is None
    assert (network.num_classes, network.num_sr_channels) == (3, 0)
    network.decoder.deep_supervision = False
    assert [x.shape for x in network(random_lr(network)).seg] == [(2, 3, *hr_shape(scale))]


@pytest.mark.parametrize("scale", SCALES)
def test_hr_classes_are_those_of_interpolated_probabilities(make, scale):
    network = make(scale, deep_supervision=True)
    hr_logits, lr_logits = network(random_lr(network)).seg[:2]
    by_hand = resample(lr_logits.softmax(1), hr_shape(scale), kind="linear")
    assert torch.equal(hr_logits.argmax(1), by_hand.argmax(1))
    assert len(by_hand.argmax(1).unique()) == 3
    torch.testing.assert_close(hr_logits.softmax(1), by_hand, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("scale", SCALES)
def test_regions_are_interpolated_channel_by_channel(make, scale):
    network = make(scale, deep_supervision=True, region_based=True)
    hr_logits, lr_logits = network(random_lr(network)).seg[:2]
    by_hand = resample(lr_logits.sigmoid(), hr_shape(scale), kind="linear")
    torch.testing.assert_close(hr_logits.sigmoid(), by_hand, atol=1e-5, rtol=1e-4)
    assert not torch.allclose(by_hand.sum(1), torch.ones(()))


@pytest.mark.parametrize("region_based", [False, True])
def test_certain_voxels_keep_finite_logits_and_gradients(region_based):
    stage = ProbabilityUpsampling((2, 2), region_based=region_based)
    certain = torch.tensor([200.0, -200.0]).reshape(1, 2, 1, 1)
    lr_logits = certain.repeat(1, 1, 2, 3).requires_grad_()
    hr_logits, _ = stage(lr_logits)
    hr_logits.square().mean().backward()
    assert hr_logits.isfinite().all()
    assert lr_logits.grad.isfinite().all()


@pytest.mark.parametrize("scale", [(2, 2, 2), (1, 2, 2), (3, 1, 1)])
def test_slabs_with_the_halo_are_exact(make, scale):
    network = make(scale, 2)
    assert network.hr_halo == tuple(int(factor > 1) for factor in scale)
    lr_image = random_lr(network)
    whole, lr_logits = network(lr_image).seg[0], network.trunk(lr_image)[0]
    halo, factor = network.hr_halo[1], scale[1]
    slab = slice(3 - halo, 5 + halo)
    logits, _ = network.hr_stage(lr_logits[..., slab, :], lr_image[..., slab, :])
    inside = logits[..., halo * factor : (halo + 2) * factor, :]
    torch.testing.assert_close(inside, whole[..., 3 * factor : 5 * factor, :], atol=1e-5, rtol=0)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("trunk", ["plain", "residual"])
def test_every_parameter_gets_a_finite_gradient(make, scale, trunk):
    counts = {"n_conv_per_stage": None, "n_blocks_per_stage": [1, 2, 1]}
    network = make(
        scale, deep_supervision=True, trunk=trunk, **(counts if trunk != "plain" else {})
    )
    seg = network(random_lr(network)).seg
    # the usual loss looks at the LR logits and below, and never at the HR ones
    sum(logits.square().mean() for logits in seg[1:]).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())
    network.zero_grad()
    network(random_lr(network)).seg[0].square().mean().backward()
    assert next(network.encoder.parameters()).grad.any()


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("deep_supervision", [False, True])
def test_feature_maps_are_counted_as_they_are_put_out(make, scale, deep_supervision, conv_outputs):
    network = make(scale, 2, deep_supervision=deep_supervision)
    counted = conv_outputs(network)
    counted.append(network(random_lr(network)).seg[0][0].numel())
    assert network.compute_conv_feature_map_size(SHAPE[-len(scale) :]) == sum(counted)
    with pytest.raises(ValueError, match=f"the network has {len(scale)} axes"):
        network.compute_conv_feature_map_size((2, *SHAPE))


def test_one_stage_is_a_network(make):
    network = make(
        (2, 1, 2), n_stages=1, features_per_stage=[5], kernel_sizes=3, strides=1,
        n_conv_per_stage=1, n_conv_per_stage_decoder=[], deep_supervision=True,
    )  # fmt: skip
    seg = network(random_lr(network)).seg
    assert [x.shape[2:] for x in seg] == [(8, 8, 24)]
    assert len(network.output_scales) == 1


def test_every_tensor_has_one_name_and_the_weights_make_the_round_trip(make):
    network = make((1, 2, 2), 2, deep_supervision=True)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.1)
    state = network.state_dict()
    assert set(state) == {key for key, _ in network.named_parameters(remove_duplicate=False)}
    assert len({tensor.data_ptr() for tensor in state.values()}) == len(state)
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    other = make((1, 2, 2), 2)
    other.load_state_dict(torch.load(file, weights_only=True))
    lr_image = random_lr(network)
    assert torch.equal(other(lr_image).seg[0], network(lr_image).seg[0])
    copy = pickle.loads(pickle.dumps(network))
    assert torch.equal(copy(lr_image).seg[0], network(lr_image).seg[0])


def test_bfloat16_autocast_keeps_float32_logits(make):
    network = make((1, 2, 2), deep_supervision=True)
    with torch.autocast("cpu", torch.bfloat16):
        out = network(random_lr(network))
    assert {x.dtype for x in out.seg} == {torch.float32}


def test_weights_start_as_nnunets(make):
    network = make((2, 1, 1), features_per_stage=[32, 32, 8])
    merging = network.decoder.stages[1].convs[0].all_modules[0].weight  # 64 -> 32 channels
    assert merging.std().item() == pytest.approx((2 / (64 * 27)) ** 0.5, rel=0.05)


@pytest.mark.filterwarnings("ignore")  # torch's own, while it compiles
def test_one_graph_compiles_for_every_shape(make):
    network = make((1, 2, 3), deep_supervision=True)
    compiled = torch.compile(network, fullgraph=True, backend="eager")
    for shape in [(4, 8, 12), (2, 4, 8)]:
        lr_image = torch.randn(1, 1, *shape)
        torch.testing.assert_close(compiled(lr_image).seg[0], network(lr_image).seg[0])


def test_inputs_that_do_not_fit_are_errors(make):
    network = make((2, 1, 1))
    assert network.lr_divisor == (2, 4, 4)
    with pytest.raises(ValueError, match=r"multiples of \(2, 4, 4\)"):
        network(torch.zeros(1, 1, 4, 8, 13))
    with pytest.raises(ValueError, match="3 entries are needed, one per axis"):
        LRSegmentation(1, 2, scale=(2, 2), **_smallest())


def _smallest() -> dict[str, Any]:
    return {
        "n_stages": 1, "features_per_stage": 4, "conv_op": nn.Conv3d, "kernel_sizes": 3,
        "strides": 1, "n_conv_per_stage": 1, "n_conv_per_stage_decoder": [],
    }  # fmt: skip
