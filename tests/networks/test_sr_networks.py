from __future__ import annotations

import pickle

import pytest
import torch
from torch import nn

from srseg.geometry.separable import resample
from srseg.networks.encoder import initialize_as_nnunet
from srseg.networks.sr_networks import SR_NETWORKS, build_sr_network

SHAPE = (4, 8, 12)  # no two alike
SCALES = [(2, 2, 2), (1, 2, 2), (3, 1, 1), (1, 1, 1), (2, 3)]
SMALL = {
    "cubic": {"name": "cubic"},
    "edsr": {"name": "edsr", "width": 5, "num_blocks": 2},
    "unfolded": {"name": "unfolded", "width": 4, "depth": 2, "num_convs": 1, "iterations": 2},
}


def make(name: str, scale: tuple[int, ...], channels: int = 1, **options) -> nn.Module:
    torch.manual_seed(3)
    ndim = len(scale)
    network = build_sr_network(
        SMALL[name] | options,
        num_channels=channels,
        conv_op=nn.Conv3d if ndim == 3 else nn.Conv2d,
        scale=scale,
        kernel_size=(3,) * ndim,
        strides=[[1] * ndim, [1, 2, 2][-ndim:], [2] * ndim],
        degradation=None,
        hr_spacing=None,
    )
    initialize_as_nnunet(network)
    network.start_as_interpolation()
    return network


def random_lr(scale: tuple[int, ...], channels: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(11)
    return torch.randn(2, channels, *SHAPE[-len(scale) :], generator=generator)


def hr_shape(scale: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(n * s for n, s in zip(SHAPE[-len(scale) :], scale, strict=True))


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("name", SR_NETWORKS)
def test_images_lie_on_the_hr_grid(name, scale, channels):
    network = make(name, scale, channels)
    image = network(random_lr(scale, channels))
    assert image.shape == (2, channels, *hr_shape(scale))
    assert image.dtype == torch.float32


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("name", ["cubic", "edsr"])
def test_a_fresh_network_interpolates(name, scale):
    lr_image = random_lr(scale, 2)
    expected = resample(lr_image, hr_shape(scale), kind="cubic")
    torch.testing.assert_close(make(name, scale, 2)(lr_image), expected, atol=2e-6, rtol=1e-5)


@pytest.mark.parametrize("name", ["edsr", "unfolded"])
@pytest.mark.parametrize("scale", SCALES)
def test_every_parameter_gets_a_finite_gradient(name, scale):
    network = make(name, scale, 2)
    for module in network.modules():  # a zero head would stop every gradient behind it
        if getattr(module, "head", None) is not None:
            nn.init.normal_(module.head.weight, std=0.1)
    network(random_lr(scale, 2)).square().mean().backward()
    assert all(p.grad.isfinite().all() and p.grad.any() for p in network.parameters())


@pytest.mark.parametrize("name", ["edsr", "unfolded"])
def test_a_few_steps_beat_interpolation(name):
    """A block of alternating HR voxels is nothing that interpolation could know."""
    torch.manual_seed(0)
    network, lr_image = make(name, (2, 2)), random_lr((2, 2))
    hr_image = lr_image.repeat_interleave(2, 2).repeat_interleave(2, 3)
    optimizer = torch.optim.Adam(network.parameters(), 1e-2)
    history = []
    for _ in range(15):
        loss = nn.functional.l1_loss(network(lr_image), hr_image)
        history.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert history[-1] < 0.8 * history[0]


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("name", SR_NETWORKS)
def test_feature_maps_are_counted_as_they_are_put_out(name, scale, conv_outputs):
    network = make(name, scale, 2)
    counted = conv_outputs(network)
    network(random_lr(scale, 2))
    assert network.compute_conv_feature_map_size(SHAPE[-len(scale) :]) == sum(counted)


@pytest.mark.parametrize("name", SR_NETWORKS)
def test_networks_pickle_and_name_each_tensor_once(name):
    network, lr_image = make(name, (2, 1, 3)), random_lr((2, 1, 3))
    copy = pickle.loads(pickle.dumps(network))
    assert torch.equal(copy(lr_image), network(lr_image))
    assert set(network.state_dict()) == {name for name, _ in network.named_parameters()}


def test_the_upsampling_starts_without_a_checkerboard():
    network = make("edsr", (2, 3))
    weight = network.upsample.weight
    assert torch.equal(weight, weight[..., :1, :1].expand_as(weight))
    assert weight[:, :, 0, 0].unique().numel() == 25


@pytest.mark.parametrize("name", ["edsr", "unfolded"])
def test_bfloat16_autocast_keeps_float32_images(name):
    network, lr_image = make(name, (1, 2, 2)), random_lr((1, 2, 2))
    expected = network(lr_image)
    with torch.autocast("cpu", torch.bfloat16):
        image = network(lr_image)
    assert image.dtype == torch.float32
    torch.testing.assert_close(image, expected, atol=1e-5, rtol=1e-5)  # the learnt part is zero


@pytest.mark.parametrize(
    ("sr_network", "message"),
    [
        ({"name": "srgan"}, "unknown SR network 'srgan'; known: cubic, edsr, unfolded"),
        ({"width": 8}, "unknown SR network None"),
        ({"name": "cubic", "width": 8}, "unknown option width of the SR network 'cubic'"),
        ({"name": "edsr", "strides": []}, "unknown option strides of the SR network 'edsr'"),
        ({"name": "edsr", "num_blocks": 0}, "num_blocks is 0; at least 1"),
        ({"name": "unfolded", "iterations": 0}, "iterations is 0; at least 1"),
        ({"name": "unfolded", "depth": -1}, "depth of the SR network 'unfolded' is -1"),
    ],
)
def test_names_and_options_that_do_not_exist_are_errors(sr_network, message):
    with pytest.raises(ValueError, match=message):
        build_sr_network(
            sr_network, num_channels=1, conv_op=nn.Conv2d, scale=(2, 2), kernel_size=(3, 3),
            strides=[[1, 1]], degradation=None, hr_spacing=None,
        )  # fmt: skip
