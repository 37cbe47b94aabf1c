from __future__ import annotations

import itertools
import pickle
from typing import Any

import pytest
import torch
from torch import nn

from srseg.geometry.separable import resample
from srseg.networks.build import build_network
from srseg.networks.slices_as_channels import SlicesAsChannels

LR_SHAPE = (5, 8, 12)
SCALES = [(1, 2, 2), (2, 2, 2), (3, 1, 1), (1, 1, 1), (2, 1, 3)]


@pytest.fixture
def make(architecture):
    """A function that builds a seeded network from scale, channels and arch_kwargs."""

    def build(scale, channels=1, *, deep_supervision=False, device=None, **changes: Any):
        torch.manual_seed(3)
        planned = architecture(3, **{"scale": list(scale), "num_slices": 5, **changes})
        planned["network_class_name"] = "srseg.networks.slices_as_channels.SlicesAsChannels"
        return build_network(planned, channels, 3, deep_supervision=deep_supervision, device=device)

    return build


def random_lr(network: SlicesAsChannels, batch: int = 2) -> torch.Tensor:
    generator = torch.Generator().manual_seed(11)
    return torch.randn(batch, network.input_channels, *LR_SHAPE, generator=generator)


def hr_shape(network: SlicesAsChannels) -> tuple[int, ...]:
    return tuple(n * s for n, s in zip(LR_SHAPE, network.scale, strict=True))


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("split", ["hr_stage", "bottleneck"])
def test_outputs_lie_on_the_hr_grid_and_a_fresh_network_interpolates(make, scale, channels, split):
    network = make(scale, channels, split=split, deep_supervision=True)
    lr_image = random_lr(network)
    out = network(lr_image)
    sizes = [[round(n * r) for n, r in zip(hr_shape(network), relative, strict=True)]
             for relative in network.output_scales]  # fmt: skip
    assert [list(logits.shape) for logits in out.seg] == [[2, 3, *size] for size in sizes]
    assert {size[0] for size in sizes} == {5 * scale[0]}
    expected = resample(lr_image, hr_shape(network), kind="cubic")
    torch.testing.assert_close(out.sr, expected, atol=2e-6, rtol=1e-5)
    assert (network.num_classes, network.num_sr_channels) == (3, channels)
    network.decoder.deep_supervision = False
    assert len(network(lr_image).seg) == 1


def test_every_convolution_is_2d_and_reads_all_slices(make):
    network = make((2, 2, 2), 2, norm_op="torch.nn.BatchNorm3d", dropout_op="torch.nn.Dropout3d",
                   dropout_op_kwargs={"p": 0.1})  # fmt: skip
    kinds = {type(m) for m in network.modules()}
    assert not {nn.Conv3d, nn.ConvTranspose3d, nn.BatchNorm3d, nn.Dropout3d} & kinds
    assert {nn.Conv2d, nn.ConvTranspose2d, nn.BatchNorm2d, nn.Dropout2d} <= kinds
    assert network.network.encoder.stages[0][0].convs[0].all_modules[0].in_channels == 2 * 5 * 2


def test_planned_kernels_and_strides_lose_their_first_axis(make):
    network = make(
        (1, 2, 2), kernel_sizes=[[1, 3, 5], 3, [3, 3, 3]],
        strides=[[1, 1, 1], [1, 2, 1], [2, 2, 2]], hr_kernel_size=[1, 3, 5],
    )  # fmt: skip
    convs = [stage[0].convs[0].all_modules[0] for stage in network.network.encoder.stages]
    assert [conv.kernel_size for conv in convs] == [(3, 5), (3, 3), (3, 3)]
    assert [conv.stride for conv in convs] == [(1, 1), (2, 1), (2, 2)]
    assert network.network.hr_stage.kernel_size == (3, 5)
    assert network.lr_divisor == (5, 4, 2)
    assert network.hr_halo is None
    same = make((1, 2, 2), kernel_sizes=3, strides=1, n_conv_per_stage=1)
    assert same.lr_divisor == (5, 1, 1)


def test_channels_and_slices_are_not_mixed_up(make):
    """A head that copies one channel of the layout writes one class or channel in one slice."""
    network = make((2, 1, 1), 2)
    head, image_head = network.network.hr_stage.seg_head, network.network.hr_stage.sr_head
    hr_slices = 10
    nn.init.zeros_(head.weight)
    with torch.no_grad():
        head.bias.copy_(torch.arange(head.out_features))
        image_head.bias.copy_(torch.arange(image_head.out_features))
    lr_image = random_lr(network)
    out = network(lr_image)
    residual = out.sr - resample(lr_image, hr_shape(network), kind="cubic")
    for found, channels in ((out.seg[0], 3), (residual, 2)):
        for channel, position in itertools.product(range(channels), range(hr_slices)):
            expected = torch.full((2, 8, 12), float(channel * hr_slices + position))
            torch.testing.assert_close(found[:, channel, position], expected, atol=1e-5, rtol=0)


def test_one_slice_reaches_all_slices_and_none_is_treated_as_its_neighbour(make):
    """What Gemini-GAN's layout means, and why it is not the default."""
    network = make((1, 2, 2)).eval()
    lr_image = random_lr(network, batch=1)
    changed = lr_image.clone()
    changed[:, :, 0] += 1
    difference = (network(changed).seg[0] - network(lr_image).seg[0]).abs().amax((0, 1, 3, 4))
    assert (difference > 1e-4).all()
    rolled = network(lr_image.roll(1, 2)).seg[0].roll(-1, 2)
    assert not torch.allclose(rolled, network(lr_image).seg[0], atol=1e-2)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("options", [{}, {"split": "decoder", "sr_into_seg": True}])
def test_every_parameter_gets_a_finite_gradient(make, scale, options):
    network = make(scale, 2, deep_supervision=True, **options)
    out = network(random_lr(network, batch=1))
    sum(x.square().mean() for x in [*out.seg, out.sr]).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("deep_supervision", [False, True])
@pytest.mark.parametrize("split", ["hr_stage", "bottleneck"])
def test_feature_maps_are_counted_as_they_are_put_out(
    make, scale, deep_supervision, split, conv_outputs
):
    network = make(scale, 2, deep_supervision=deep_supervision, split=split)
    counted = conv_outputs(network)
    out = network(random_lr(network))
    counted += [out.seg[0][0].numel(), out.sr[0].numel()]
    assert network.compute_conv_feature_map_size(LR_SHAPE) == sum(counted)


def test_input_bounds_are_per_channel_and_act_on_the_trunk_alone(make):
    network = make((2, 2, 2), 2, input_clip=[(-0.5, 0.5), None])
    lr_image = random_lr(network)
    lr_image[:, 0] = 4 + lr_image[:, 0].abs()
    brighter = lr_image.clone()
    brighter[:, 0] += 3
    out, other = network(lr_image), network(brighter)
    assert torch.equal(out.seg[0], other.seg[0])
    torch.testing.assert_close(other.sr[:, 0], out.sr[:, 0] + 3)
    brighter[:, 1] += 3
    assert not torch.allclose(out.seg[0], network(brighter).seg[0])


def test_without_sr_head_there_is_no_image(make):
    network = make((2, 2, 2), sr_head=False)
    assert network(random_lr(network)).sr is None
    assert network.num_sr_channels == 0


def test_networks_pickle_and_the_weights_make_the_round_trip(make):
    network = make((2, 2, 2), 2, split="bottleneck")
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.2)
    state = network.state_dict()
    assert len({tensor.data_ptr() for tensor in state.values()}) == len(state)
    other = make((2, 2, 2), 2, split="bottleneck")
    other.load_state_dict(state)
    lr_image = random_lr(network)
    for copy in (other, pickle.loads(pickle.dumps(network))):
        assert torch.equal(copy(lr_image).sr, network(lr_image).sr)
        assert torch.equal(copy(lr_image).seg[0], network(lr_image).seg[0])


def test_it_is_counted_without_memory(make):
    network = make((2, 2, 2), 2, device="meta")
    assert all(parameter.is_meta for parameter in network.parameters())
    assert network.compute_conv_feature_map_size(LR_SHAPE) > 0


def test_bfloat16_autocast_keeps_the_image_and_float32_outputs(make):
    network = make((2, 2, 2), 2, deep_supervision=True)
    lr_image = random_lr(network)
    with torch.autocast("cpu", torch.bfloat16):
        out = network(lr_image)
    assert {x.dtype for x in [*out.seg, out.sr]} == {torch.float32}
    expected = resample(lr_image, hr_shape(network), kind="cubic")
    torch.testing.assert_close(out.sr, expected, atol=2e-6, rtol=1e-5)


def test_another_number_of_slices_is_an_error_that_names_both(make):
    network = make((1, 2, 2))
    message = r"got 6 slices; .* exactly 5 \(num_slices\)"
    with pytest.raises(ValueError, match=message):
        network(torch.zeros(1, 1, 6, 8, 12))
    with pytest.raises(ValueError, match=message):
        network.compute_conv_feature_map_size((6, 8, 12))
    with pytest.raises(ValueError, match="the network has 3 axes"):
        network.compute_conv_feature_map_size((5, 8))
    for shape in [(1, 1, 5, 8, 13), (1, 2, 5, 8, 12), (1, 5, 8, 12)]:
        with pytest.raises(ValueError, match=r"multiples of \(5, 4, 4\)"):
            network(torch.zeros(shape))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_slices": None}, "SlicesAsChannels needs num_slices"),
        ({"num_slices": 0}, "num_slices is 0; at least 1 is needed"),
        ({"conv_op": "torch.nn.Conv2d"}, "takes the arguments of a 3-D network, so Conv3d"),
        ({"scale": [2, 2]}, "3 entries are needed, one per axis"),
        ({"kernel_sizes": [[3, 3]] * 3}, "kernel_sizes must have 3 entries per stage"),
        ({"strides": [[1, 1]] * 3}, "strides must have 3 entries per stage"),
        ({"hr_kernel_size": [3, 3]}, "3 odd numbers are needed"),
        ({"input_clip": [None, None]}, "input_clip has 2 entries, 1 are needed"),
        ({"split": "encoder"}, "unknown split"),
        ({"slices": 3}, "unknown argument slices"),
    ],
)
def test_arguments_that_contradict_are_errors(make, changes, message):
    with pytest.raises(ValueError, match=message):
        make(**{"scale": (1, 2, 2), **changes})
