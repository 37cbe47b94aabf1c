from __future__ import annotations

import io
import json
import pickle
from math import prod

import pytest
import torch
from torch import nn

from srseg.geometry.separable import resample
from srseg.networks.build import build_network
from srseg.networks.joint_unet import JointUNet, deep_supervision_scales

SHAPE = (4, 8, 12)  # multiples of the tiny network's strides, no two alike
SCALES = [(1, 1, 1), (2, 1, 1), (1, 2, 2), (3, 2, 1), (2, 2, 2), (1, 1), (2, 3)]


def random_lr(network: JointUNet, batch: int = 2) -> torch.Tensor:
    generator = torch.Generator().manual_seed(11)
    shape = SHAPE[-len(network.scale) :]
    return torch.randn(batch, network.input_channels, *shape, generator=generator)


def hr_shape(network: JointUNet) -> tuple[int, ...]:
    lr_shape = SHAPE[-len(network.scale) :]
    return tuple(n * s for n, s in zip(lr_shape, network.scale, strict=True))


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("channels", [1, 2])
def test_outputs_lie_on_the_hr_grid(make_network, scale, channels):
    network = make_network(scale, channels, 3)
    out = network(random_lr(network))
    assert [x.shape for x in out.seg] == [(2, 3, *hr_shape(network))]
    assert out.sr.shape == (2, channels, *hr_shape(network))
    assert (network.num_classes, network.num_sr_channels) == (3, channels)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("trunk", ["plain", "residual"])
def test_a_fresh_network_interpolates(make_network, scale, trunk):
    counts = {"n_conv_per_stage": None, "n_blocks_per_stage": [1, 2, 1]}
    network = make_network(scale, 2, trunk=trunk, **(counts if trunk == "residual" else {}))
    lr_image = random_lr(network)
    expected = resample(lr_image, hr_shape(network), kind="cubic")
    torch.testing.assert_close(network(lr_image).sr, expected, atol=2e-6, rtol=1e-5)


@pytest.mark.parametrize("scale", SCALES)
def test_deep_supervision_follows_its_scales(make_network, scale):
    network = make_network(scale, deep_supervision=True)
    strides = [[1] * len(scale), *network.decoder.strides[1:]]
    scales = deep_supervision_scales(strides, scale)
    assert network.output_scales == scales
    seg = network(random_lr(network)).seg
    assert len(seg) == len(scales) == 3
    for logits, relative in zip(seg, scales, strict=True):
        expected = [round(n * r) for n, r in zip(hr_shape(network), relative, strict=True)]
        assert list(logits.shape[2:]) == expected
    network.decoder.deep_supervision = False
    assert len(network(random_lr(network)).seg) == 1


def test_deep_supervision_scales_by_hand():
    strides = [[1, 1, 1], [1, 2, 2], [2, 2, 2], [2, 2, 2]]
    assert deep_supervision_scales(strides, (1, 2, 4)) == [
        [1, 1, 1], [1, 1 / 2, 1 / 4], [1, 1 / 4, 1 / 8], [1 / 2, 1 / 8, 1 / 16],
    ]  # fmt: skip
    assert deep_supervision_scales([[1, 1]], (2, 3)) == [[1, 1]]


@pytest.mark.parametrize("trunk", ["plain", "residual"])
def test_weights_start_as_nnunets(make_network, trunk):
    counts = {"n_conv_per_stage": None, "n_blocks_per_stage": [1, 2, 1]}
    network = make_network(
        (2, 1, 1), trunk=trunk, features_per_stage=[32, 32, 8],
        **(counts if trunk == "residual" else {}),
    )  # fmt: skip
    kinds = (nn.Conv3d, nn.ConvTranspose3d, nn.Linear)
    layers = [module for module in network.modules() if isinstance(module, kinds)]
    assert not any(layer.bias.any() for layer in layers if layer.bias is not None)
    merging = network.decoder.stages[1].convs[0].all_modules[0].weight  # 64 -> 32 channels
    assert merging.std().item() == pytest.approx((2 / (64 * 27)) ** 0.5, rel=0.05)


def test_a_method_switches_the_planned_trunk(make_network):
    """The plans keep their n_conv_per_stage, a method only adds."""
    network = make_network((1, 2, 2), trunk="residual")
    assert [len(stage.blocks) for stage in network.encoder.stages] == [1, 3, 4]
    assert [len(stage.convs) for stage in network.decoder.stages] == [2, 1]  # as planned
    network = make_network((1, 2, 2), trunk="residual", n_blocks_per_stage=[2, 1, 1])
    assert [len(stage.blocks) for stage in network.encoder.stages] == [2, 1, 1]


def test_a_network_without_nonlinearity_is_linear_in_the_hr_stage(make_network):
    network = make_network((2, 1, 2), nonlin=None, _kw_requires_import=["conv_op", "norm_op"])
    stage, features = network.hr_stage, torch.randn(1, 5, 2, 3, 4)
    lr_image = torch.zeros(1, 1, 2, 3, 4)
    torch.testing.assert_close(stage(-features, lr_image)[0], -stage(features, lr_image)[0])


def test_one_stage_is_a_network(make_network):
    network = make_network(
        (2, 1, 2), n_stages=1, features_per_stage=[5], kernel_sizes=3, strides=1,
        n_conv_per_stage=1, n_conv_per_stage_decoder=[], deep_supervision=True,
    )  # fmt: skip
    assert [x.shape[2:] for x in network(random_lr(network)).seg] == [(8, 8, 24)]


def test_slabs_with_the_halo_are_exact_in_the_whole_network(make_network):
    network = make_network((3, 2, 1), 2).eval()
    nn.init.normal_(network.hr_stage.sr_head.weight)
    lr_image = random_lr(network)
    with torch.no_grad():
        features = network.trunk(lr_image)[0]
        whole = network(lr_image)
        halo, factor = network.hr_halo[1], network.scale[1]
        first, last = 3 - halo, 5 + halo
        logits, image = network.hr_stage(features[..., first:last, :], lr_image[..., first:last, :])
    inside = slice(halo * factor, (halo + 2) * factor)
    expected = slice(3 * factor, 5 * factor)
    torch.testing.assert_close(
        logits[..., inside, :], whole.seg[0][..., expected, :], atol=1e-5, rtol=0
    )
    torch.testing.assert_close(image[..., inside, :], whole.sr[..., expected, :], atol=1e-5, rtol=0)


@pytest.mark.parametrize("scale", [(1, 1, 1), (1, 2, 2)])
def test_gradients_reach_heads_and_trunk(make_network, scale):
    network = make_network(scale, deep_supervision=True)
    lr_image = random_lr(network)
    first = network.encoder.stages[0][0].convs[0].all_modules[0].weight

    network(lr_image).sr.square().mean().backward()
    head = network.hr_stage.sr_head.weight
    assert head.grad.abs().sum() > 0
    assert not first.grad.any()  # the head is zero, so nothing passes yet

    torch.optim.SGD([head], 0.1).step()
    network.zero_grad()
    network(lr_image).sr.square().mean().backward()
    assert first.grad.abs().sum() > 0

    network.zero_grad()
    sum(logits.square().mean() for logits in network(lr_image).seg).backward()
    assert all(p.grad is not None for p in network.parameters())  # DDP wants every one
    assert not head.grad.any()
    assert network.hr_stage.seg_head.weight.grad.abs().sum() > 0
    assert first.grad.abs().sum() > 0


def test_two_steps_lower_both_losses(make_network):
    network = make_network((2, 2, 2), 1, 2)
    lr_image = random_lr(network)
    target = (lr_image.repeat_interleave(2, 2).repeat_interleave(2, 3).repeat_interleave(2, 4)) > 0
    optimizer = torch.optim.Adam(network.parameters(), 1e-2)
    history = []
    for _ in range(8):
        out = network(lr_image)
        seg = nn.functional.cross_entropy(out.seg[0], target[:, 0].long())
        sr = nn.functional.l1_loss(out.sr, target.float())
        history.append((seg.item(), sr.item()))
        optimizer.zero_grad()
        (seg + sr).backward()
        optimizer.step()
    assert history[-1][0] < 0.9 * history[0][0]
    assert history[-1][1] < 0.9 * history[0][1]


def test_without_sr_head_there_is_no_image(make_network):
    network = make_network((1, 2, 2), 2, sr_head=False)
    assert network(random_lr(network)).sr is None
    assert network.num_sr_channels == 0
    assert not any("sr_head" in name for name in network.state_dict())


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("trunk", ["plain", "residual"])
@pytest.mark.parametrize("deep_supervision", [False, True])
def test_feature_maps_are_counted_as_they_are_put_out(
    make_network, scale, trunk, deep_supervision, conv_outputs
):
    counts = {"n_conv_per_stage": None, "n_blocks_per_stage": [1, 2, 1]}
    network = make_network(
        scale, 2, deep_supervision=deep_supervision, trunk=trunk,
        **(counts if trunk == "residual" else {}),
    )  # fmt: skip
    counted = conv_outputs(network)
    out = network(random_lr(network))
    counted += [out.seg[0][0].numel(), out.sr[0].numel()]
    assert network.compute_conv_feature_map_size(SHAPE[-len(scale) :]) == sum(counted)


def test_every_tensor_has_one_name_and_the_weights_make_the_round_trip(make_network):
    network = make_network((1, 2, 2), 2, deep_supervision=True)
    for parameter in network.parameters():
        nn.init.normal_(parameter)
    state = network.state_dict()
    assert set(state) == {name for name, _ in network.named_parameters(remove_duplicate=False)}
    pointers = [tensor.data_ptr() for tensor in state.values()]
    assert len(set(pointers)) == len(pointers)

    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    other = make_network((1, 2, 2), 2)
    other.load_state_dict(torch.load(file, weights_only=True))
    lr_image = random_lr(network)
    assert torch.equal(other(lr_image).sr, network(lr_image).sr)
    assert torch.equal(other(lr_image).seg[0], network(lr_image).seg[0])


@pytest.mark.parametrize("trunk", ["plain", "residual"])
def test_networks_pickle(make_network, trunk):
    counts = {"n_conv_per_stage": None, "n_blocks_per_stage": [2, 2, 2]}
    network = make_network((2, 1, 1), trunk=trunk, **(counts if trunk == "residual" else {}))
    lr_image = random_lr(network)
    copy = pickle.loads(pickle.dumps(network))
    assert torch.equal(copy(lr_image).seg[0], network(lr_image).seg[0])


def test_trunk_takes_the_weights_of_a_stock_network(make_network):
    """Names and order of encoder and decoder are nnU-Net's, its duplicates apart."""
    from dynamic_network_architectures.architectures.unet import PlainConvUNet

    network = make_network((2, 1, 2), norm_op_kwargs={"eps": 1e-5, "affine": True})
    stock = PlainConvUNet(
        1, 3, [5, 6, 8], nn.Conv3d, 3, [[1, 1, 1], [1, 2, 2], [2, 2, 2]], 2, 3, [2, 1],
        conv_bias=True, norm_op=nn.InstanceNorm3d, norm_op_kwargs={"affine": True},
        nonlin=nn.LeakyReLU, deep_supervision=True,
    )  # fmt: skip
    own = {name for name in network.state_dict() if not name.startswith("hr_stage.")}
    missing, _ = network.load_state_dict(
        {k: v for k, v in stock.state_dict().items() if k in own}, strict=False
    )
    assert all(name.startswith("hr_stage.") for name in missing)
    network.decoder.deep_supervision = True
    lr_image = random_lr(network)
    for ours, theirs in zip(network(lr_image).seg[1:], stock(lr_image), strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("scale", [(1, 1, 1), (1, 2, 2)])
def test_bfloat16_autocast_keeps_the_image_and_float32_outputs(make_network, scale):
    network = make_network(scale, 2, deep_supervision=True)
    lr_image = random_lr(network)
    with torch.autocast("cpu", torch.bfloat16):
        out = network(lr_image)
    assert {x.dtype for x in [*out.seg, out.sr]} == {torch.float32}
    expected = resample(lr_image, hr_shape(network), kind="cubic")
    torch.testing.assert_close(out.sr, expected, atol=2e-6, rtol=1e-5)
    sum(x.square().mean() for x in [*out.seg, out.sr]).backward()
    assert all(p.grad.isfinite().all() for p in network.parameters())


def test_channels_last_changes_no_number(make_network):
    network = make_network((2, 1, 2), 2)
    lr_image = random_lr(network)
    expected = network(lr_image)
    network = network.to(memory_format=torch.channels_last_3d)
    out = network(lr_image.to(memory_format=torch.channels_last_3d))
    torch.testing.assert_close(out.seg[0], expected.seg[0], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(out.sr, expected.sr)


@pytest.mark.filterwarnings("ignore")  # torch's own, while it compiles
def test_one_graph_compiles_for_every_shape(make_network):
    network = make_network((1, 2, 3), 2, deep_supervision=True)
    compiled = torch.compile(network, fullgraph=True, backend="eager")
    for shape in [(4, 8, 12), (2, 4, 8)]:
        lr_image = torch.randn(1, 2, *shape)
        out = compiled(lr_image)
        torch.testing.assert_close(out.sr, network(lr_image).sr)
        assert len(out.seg) == 3


def test_anisotropic_slices_stay_apart_on_the_hr_grid_unless_refined(make_network):
    kernels = [[1, 3, 3], [3, 3, 3], [3, 3, 3]]
    cine = make_network((1, 2, 2), kernel_sizes=kernels)
    assert cine.hr_stage.kernel_size == (1, 3, 3)
    assert cine.hr_halo == (0, 2, 2)
    assert make_network((4, 1, 1), kernel_sizes=kernels).hr_stage.kernel_size == (3, 3, 3)
    chosen = make_network((1, 2, 2), kernel_sizes=kernels, hr_kernel_size=[3, 5, 3])
    assert chosen.hr_stage.kernel_size == (3, 5, 3)
    assert chosen(random_lr(chosen)).sr.shape[2:] == (4, 16, 24)


@pytest.mark.parametrize("shape", [(1, 1, 4, 8, 13), (1, 2, 4, 8, 12), (1, 1, 8, 12)])
def test_inputs_that_do_not_fit_are_errors(make_network, shape):
    network = make_network((2, 1, 1), 1)
    assert network.lr_divisor == (2, 4, 4)
    with pytest.raises(ValueError, match=r"multiples of \(2, 4, 4\)"):
        network(torch.zeros(shape))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scale": [2, 2]}, "3 entries are needed, one per axis"),
        ({"scale": [2, 2.5, 1]}, "whole numbers >= 1"),
        ({"strides": [[2, 2, 2]] * 3}, "the first stage must keep the LR grid"),
        ({"features_per_stage": [5, 6]}, "features_per_stage has 2 entries, 3 are needed"),
        ({"n_conv_per_stage_decoder": [1]}, "n_conv_per_stage_decoder has 1 entries"),
        ({"kernel_sizes": [[3, 3]] * 3}, "kernel_sizes must have 3 entries per stage"),
        ({"hr_kernel_size": [3, 2, 3]}, "3 odd numbers are needed"),
        ({"conv_op": "torch.nn.Linear"}, "unknown conv_op"),
        ({"hr_width": 0}, "hr_width is 0"),
        ({"hr_num_convs": 0}, "hr_num_convs is 0"),
    ],
)
def test_arguments_that_contradict_are_errors(architecture, changes, message):
    with pytest.raises(ValueError, match=message):
        build_network(architecture(3, **changes), 1, 2)


def test_a_patch_with_other_axes_is_an_error(make_network):
    with pytest.raises(ValueError, match="the network has 3 axes"):
        make_network((2, 1, 1)).compute_conv_feature_map_size((1, 1, *SHAPE))


def test_the_count_is_a_plain_number(make_network):
    count = make_network((2, 2, 2)).compute_conv_feature_map_size(SHAPE)
    assert type(count) is int
    assert json.dumps(count)
    assert count > 8 * prod(SHAPE) * 4 * 3  # at least the HR stage


@pytest.mark.parametrize(
    ("scale", "trunk", "num_tensors", "logits", "image"),
    [
        ((2, 1, 1), "plain", 54, 0.533852, 1.015757),
        ((1, 2, 2), "residual", 72, 0.465593, 0.675033),
        ((1, 1, 1), "plain", 52, 0.462083, 1.002596),
        ((2, 3), "plain", 54, 0.561723, 0.759988),
    ],
)
def test_networks_trained_before_the_tasks_could_part_are_unchanged(
    make_network, scale, trunk, num_tensors, logits, image
):
    """Numbers of commit 85633df: as many tensors, the same random start, the same outputs."""
    counts = {"n_conv_per_stage": None, "n_blocks_per_stage": [1, 2, 1]}
    network = make_network(
        scale, 2, trunk=trunk, deep_supervision=True, **(counts if trunk == "residual" else {})
    )
    nn.init.normal_(network.hr_stage.sr_head.weight)
    out = network(random_lr(network))
    assert len(network.state_dict()) == num_tensors
    assert out.seg[0].abs().mean().item() == pytest.approx(logits, rel=1e-5)
    assert out.sr.abs().mean().item() == pytest.approx(image, rel=1e-5)
