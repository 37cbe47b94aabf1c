from __future__ import annotations

import io
import json
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from srseg.degradation.spec import default_degradation
from srseg.geometry.separable import resample
from srseg.networks.build import build_network
from srseg.networks.serial import SerialSRSeg

SHAPE = (4, 8, 12)
SCALES = [(2, 2, 2), (1, 2, 2), (3, 1, 1), (1, 1, 1), (2, 3)]
SMALL = {
    "cubic": {"name": "cubic"},
    "edsr": {"name": "edsr", "width": 5, "num_blocks": 2},
    "unfolded": {"name": "unfolded", "width": 4, "depth": 2, "num_convs": 1, "iterations": 2},
}
HR_SPACING = (2.0, 0.9, 0.8)


@pytest.fixture
def make(architecture) -> Callable[..., SerialSRSeg]:
    """A function that builds a seeded network from the plans' JSON alone."""

    def build(
        name: str,
        scale: tuple[int, ...],
        channels: int = 1,
        *,
        deep_supervision: bool = False,
        **changes: Any,
    ) -> SerialSRSeg:
        three = (1, *scale)[-3:]
        spec = default_degradation("MR", HR_SPACING, three, multislice=True)
        planned = architecture(
            len(scale),
            scale=list(scale),
            sr_network=SMALL[name],
            degradation=spec.to_json(),
            hr_spacing=list(HR_SPACING[-len(scale) :]),
            **changes,
        )
        planned["network_class_name"] = "srseg.networks.serial.SerialSRSeg"
        torch.manual_seed(3)
        planned = json.loads(json.dumps(planned))
        return build_network(planned, channels, 3, deep_supervision=deep_supervision)

    return build


def random_lr(network: SerialSRSeg, batch: int = 2) -> torch.Tensor:
    shape = (batch, network.input_channels, *SHAPE[-len(network.scale) :])
    return torch.randn(shape, generator=torch.Generator().manual_seed(11))


def hr_shape(scale: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(n * s for n, s in zip(SHAPE[-len(scale) :], scale, strict=True))


def wake(network: SerialSRSeg) -> None:
    """Give the SR network a residual: its zero head would hide where gradients go."""
    for module in network.sr_network.modules():
        if getattr(module, "head", None) is not None:
            nn.init.normal_(module.head.weight, std=0.1)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("name", SMALL)
def test_outputs_lie_on_the_hr_grid(make, name, scale, channels):
    network = make(name, scale, channels, deep_supervision=True)
    out = network(random_lr(network))
    expected = [
        [round(n * r) for n, r in zip(hr_shape(scale), relative, strict=True)]
        for relative in network.output_scales
    ]
    assert [list(x.shape[2:]) for x in out.seg] == expected
    assert len(out.seg) == 2  # the bottleneck has no logits
    assert {x.shape[1] for x in out.seg} == {3}
    assert out.sr.shape == (2, channels, *hr_shape(scale))
    assert (network.num_classes, network.num_sr_channels) == (3, channels)
    network.decoder.deep_supervision = False
    assert [x.shape[2:] for x in network(random_lr(network)).seg] == [hr_shape(scale)]


@pytest.mark.parametrize("name", ["cubic", "edsr"])
@pytest.mark.parametrize("scale", SCALES)
def test_a_fresh_network_interpolates(make, name, scale):
    network = make(name, scale, 2)
    lr_image = random_lr(network)
    expected = resample(lr_image, hr_shape(scale), kind="cubic")
    torch.testing.assert_close(network(lr_image).sr, expected, atol=2e-6, rtol=1e-5)


def test_upsample_then_segment_is_nnunet_on_the_interpolated_image(make):
    network = make("cubic", (2, 1, 3)).eval()
    lr_image = random_lr(network)
    interpolated = resample(lr_image, hr_shape((2, 1, 3)), kind="cubic")
    expected = network.segmenter(interpolated)[0]
    torch.testing.assert_close(network(lr_image).seg[0], expected, atol=1e-4, rtol=1e-4)
    assert not list(network.sr_network.parameters())


@pytest.mark.parametrize(
    ("scale", "expected"),
    [
        ((2, 2, 2), (1, 2, 2)),
        ((1, 2, 2), (2, 2, 2)),
        ((3, 1, 1), (2, 4, 4)),
        ((4, 8, 3), (1, 1, 4)),
        ((2, 3), (2, 4)),
    ],
)
def test_the_lr_divisor_makes_the_hr_size_fit_the_segmenter(make, scale, expected):
    network = make("cubic", scale)
    assert network.lr_divisor == expected
    smallest = torch.zeros(1, 1, *(2 * d for d in expected))
    assert network(smallest).seg[0].shape[2:] == tuple(
        2 * d * s for d, s in zip(expected, scale, strict=True)
    )
    assert network.hr_halo is None


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("trunk", ["plain", "residual"])
def test_every_parameter_gets_a_finite_gradient(make, name, scale, trunk):
    counts = {"n_conv_per_stage": None, "n_blocks_per_stage": [1, 2, 1]}
    network = make(
        name, scale, 2, deep_supervision=True, trunk=trunk, **(counts if trunk != "plain" else {})
    )
    out = network(random_lr(network, batch=1))
    (sum(x.square().mean() for x in out.seg) + out.sr.square().mean()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


def test_the_segmentation_teaches_the_sr_network_unless_detached(make):
    network = make("edsr", (1, 2, 2))
    wake(network)
    for detach in (False, True):
        network.zero_grad()
        network.detach_sr = detach
        network(random_lr(network)).seg[0].square().mean().backward()
        taught = [p.grad is not None and p.grad.any() for p in network.sr_network.parameters()]
        assert all(taught) if not detach else not any(taught)
    assert network(random_lr(network)).sr.requires_grad  # for the SR loss all the same


def test_the_bounds_leave_the_sr_image_alone(make):
    network = make("edsr", (2, 2, 2), input_clip=[[-0.2, 0.2]])
    lr_image = random_lr(network)
    out = network(lr_image)
    torch.testing.assert_close(
        out.sr, resample(lr_image, hr_shape((2, 2, 2)), kind="cubic"), atol=2e-6, rtol=1e-5
    )
    assert out.sr.abs().max() > 1
    torch.testing.assert_close(out.seg[0], network.segment(out.sr.clamp(-0.2, 0.2))[0])


@pytest.mark.parametrize("name", SMALL)
def test_without_sr_head_there_is_no_image(make, name):
    network = make(name, (1, 2, 2), 2, sr_head=False)
    out = network(random_lr(network))
    assert out.sr is None
    assert network.num_sr_channels == 0
    assert out.seg[0].shape[2:] == hr_shape((1, 2, 2))


@pytest.mark.parametrize("part", ["sr_network", "segmenter"])
def test_a_frozen_part_stays_as_it_is_while_gradients_pass(make, part):
    norm = {"norm_op": "torch.nn.BatchNorm3d", "dropout_op": "torch.nn.Dropout3d",
            "dropout_op_kwargs": {"p": 0.5}}  # fmt: skip
    network = make("edsr", (1, 2, 2), **norm)
    wake(network)
    other = next(name for name in ("sr_network", "segmenter") if name != part)
    frozen, trained = getattr(network, part), getattr(network, other)
    lr_image = random_lr(network).requires_grad_()
    # momentum, weight decay and a left-over gradient would all move a part that is only detached
    optimizer = torch.optim.SGD(network.parameters(), 0.1, momentum=0.9, weight_decay=0.1)
    (network(lr_image).seg[0].square().mean() + network(lr_image).sr.square().mean()).backward()
    optimizer.step()
    before = {k: v.clone() for k, v in network.state_dict().items()}
    lr_image.grad = None
    with network.frozen(part):
        network.train()
        assert not any(module.training for module in frozen.modules())
        assert all(module.training for module in trained.modules())
        out = network(lr_image)
        (out.seg[0].square().mean() + out.sr.square().mean()).backward()
        optimizer.step()
    assert lr_image.grad.any()
    moved = {k for k, v in network.state_dict().items() if not torch.equal(v, before[k])}
    assert moved
    assert all(name.startswith(other) for name in moved)
    assert all(p.requires_grad for p in network.parameters())
    assert all(module.training for module in network.modules())


def test_a_frozen_segmenter_hands_its_gradient_to_the_sr_network(make):
    network = make("unfolded", (2, 2, 2))
    wake(network)
    with network.frozen("segmenter"):
        loss = network(random_lr(network)).seg[0].square().mean()
    loss.backward()  # what was frozen in the forward pass stays out of it
    assert all(p.grad.any() for p in network.sr_network.parameters())
    assert all(p.grad is None for p in network.segmenter.parameters())


def test_freezing_ends_with_its_context_and_leaves_what_was_frozen_before(make):
    network = make("edsr", (1, 1, 1)).eval()
    network.sr_network.entry.weight.requires_grad_(False)
    with network.frozen("segmenter"):
        with network.frozen("sr_network"):
            assert not network.sr_network.entry.bias.requires_grad
        assert network.sr_network.entry.bias.requires_grad
        assert not network.segmenter.decoder.seg_layers[0].weight.requires_grad
    with pytest.raises(ValueError, match="multiples of"), network.frozen("segmenter"):
        network(torch.zeros(1, 1, 1, 1, 1))
    assert not network.sr_network.entry.weight.requires_grad
    assert all(p.requires_grad for p in network.segmenter.parameters())
    assert not any(module.training for module in network.modules())
    with pytest.raises(ValueError, match="unknown part 'decoder' to freeze; known: sr_network"):
        network.frozen("decoder").__enter__()


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("deep_supervision", [False, True])
def test_feature_maps_are_counted_as_they_are_put_out(
    make, name, scale, deep_supervision, conv_outputs
):
    network = make(name, scale, 2, deep_supervision=deep_supervision)
    counted = conv_outputs(network)
    network(random_lr(network))
    assert network.compute_conv_feature_map_size(SHAPE[-len(scale) :]) == sum(counted)
    with pytest.raises(ValueError, match=f"the network has {len(scale)} axes"):
        network.compute_conv_feature_map_size((2, *SHAPE))


@pytest.mark.parametrize("name", SMALL)
def test_every_tensor_has_one_name_and_the_weights_make_the_round_trip(make, name):
    network = make(name, (1, 2, 2), 2, deep_supervision=True)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.1)
    state = network.state_dict()
    assert set(state) == {key for key, _ in network.named_parameters(remove_duplicate=False)}
    assert len({tensor.data_ptr() for tensor in state.values()}) == len(state)
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    other = make(name, (1, 2, 2), 2)
    other.load_state_dict(torch.load(file, weights_only=True))
    lr_image = random_lr(network)
    assert torch.equal(other(lr_image).sr, network(lr_image).sr)
    assert torch.equal(other(lr_image).seg[0], network(lr_image).seg[0])
    copy = pickle.loads(pickle.dumps(network))
    assert torch.equal(copy(lr_image).seg[0], network(lr_image).seg[0])


@pytest.mark.parametrize("name", SMALL)
def test_bfloat16_autocast_keeps_float32_outputs(make, name):
    network = make(name, (1, 2, 2), 2, deep_supervision=True)
    with torch.autocast("cpu", torch.bfloat16):
        out = network(random_lr(network))
    assert {x.dtype for x in [*out.seg, out.sr]} == {torch.float32}
    (sum(x.square().mean() for x in out.seg) + out.sr.square().mean()).backward()
    assert all(p.grad.isfinite().all() for p in network.parameters())


def test_sr_convolutions_leave_out_axes_that_are_too_coarse(make):
    kernels = [[1, 3, 3], [3, 3, 3], [3, 3, 3]]
    assert make("edsr", (1, 2, 2), kernel_sizes=kernels).sr_network.entry.kernel_size == (1, 3, 3)
    assert make("edsr", (2, 1, 1), kernel_sizes=kernels).sr_network.entry.kernel_size == (3, 3, 3)
    chosen = make("edsr", (1, 2, 2), hr_kernel_size=[3, 5, 3])
    assert chosen.sr_network.entry.kernel_size == (3, 5, 3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"detach_sr": True, "sr_head": False}, "leaves the SR network without any gradient"),
        ({"width": 3}, "unknown argument width for SerialSRSeg"),
        ({"n_stages": None}, "SerialSRSeg needs n_stages"),
        ({"features_per_stage": [5]}, "features_per_stage has 1 entries, 3 are needed"),
    ],
)
def test_arguments_that_contradict_are_errors(make, changes, message):
    with pytest.raises(ValueError, match=message):
        make("edsr", (2, 2, 2), **changes)


def test_an_input_that_does_not_fit_is_an_error(make):
    with pytest.raises(ValueError, match=r"multiples of \(1, 2, 2\)"):
        make("cubic", (2, 2, 2))(torch.zeros(1, 1, 4, 8, 13))
