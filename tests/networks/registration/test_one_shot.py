"""The registering network: alone a joint network, next to the identity when new."""

import json

import pytest
import torch

from srseg.networks.build import build_network
from srseg.networks.joint_unet import JointUNet
from srseg.networks.registration.one_shot import OneShotNet

CLASS = "srseg.networks.registration.one_shot.OneShotNet"


def architecture(ndim=3, **changes):
    kwargs = {
        "n_stages": 3,
        "features_per_stage": [4, 6, 8],
        "conv_op": f"torch.nn.Conv{ndim}d",
        "kernel_sizes": [[3] * ndim] * 3,
        "strides": [[1] * ndim, [2] * ndim, [1, *[2] * (ndim - 1)]],
        "n_conv_per_stage": [1, 1, 1],
        "n_conv_per_stage_decoder": [1, 1],
        "conv_bias": True,
        "norm_op": f"torch.nn.InstanceNorm{ndim}d",
        "norm_op_kwargs": {"affine": True},
        "nonlin": "torch.nn.LeakyReLU",
        "scale": [1, 2, 3][-ndim:],
        "hr_width": 4,
    }
    needs = ["conv_op", "norm_op", "nonlin"]
    arguments = json.loads(json.dumps(kwargs | changes))
    return {"network_class_name": CLASS, "arch_kwargs": arguments, "_kw_requires_import": needs}


@pytest.mark.parametrize(("ndim", "shape"), [(3, (4, 8, 12)), (2, (8, 12))])
def test_a_new_network_is_next_to_the_identity(ndim, shape):
    torch.manual_seed(0)
    network = build_network(architecture(ndim), 2, 3)
    moving, fixed = (network.encode(torch.randn(1, 2, *shape)) for _ in range(2))
    field = network.displacement(moving, fixed)
    hr_shape = [n * s for n, s in zip(shape, network.scale, strict=True)]
    assert field.shape == (1, ndim, *hr_shape)
    assert field.dtype == torch.float32
    assert 0 < field.abs().max() < 0.01
    assert not network.registration_decoder.flow.bias.any()


def test_swapping_the_pair_gives_another_field_and_batches_stay_apart():
    torch.manual_seed(0)
    network = build_network(architecture(), 1, 3)
    with torch.no_grad():
        network.registration_decoder.flow.weight.normal_(std=0.3)
        first, second = (network.encode(torch.randn(2, 1, 4, 8, 8)) for _ in range(2))
        there, back = network.displacement(first, second), network.displacement(second, first)
        alone = network.displacement([f[1:] for f in first], [f[1:] for f in second])
    assert (there - back).abs().max() > 0.1
    assert not torch.allclose(there, -back, atol=0.05)
    torch.testing.assert_close(there[1:], alone, atol=1e-4, rtol=1e-4)


def test_integration_changes_large_fields_only():
    torch.manual_seed(0)
    plain = build_network(architecture(), 1, 3)
    squared = build_network(architecture(integration_steps=5), 1, 3)
    squared.load_state_dict(plain.state_dict())
    features = [plain.encode(torch.randn(1, 1, 4, 8, 8)) for _ in range(2)]
    with torch.no_grad():
        small = [net.displacement(*features) for net in (plain, squared)]
        torch.testing.assert_close(*small, atol=1e-6, rtol=1e-2)
        for net in (plain, squared):
            net.registration_decoder.flow.weight.mul_(1e5)
        large = [net.displacement(*features) for net in (plain, squared)]
    assert (large[0] - large[1]).abs().max() > 0.01


def test_alone_it_is_a_joint_unet():
    torch.manual_seed(0)
    network = build_network(architecture(), 1, 3)
    plans = {**architecture(), "network_class_name": "srseg.networks.joint_unet.JointUNet"}
    joint = build_network(plans, 1, 3)
    own = {k: v for k, v in network.state_dict().items() if not k.startswith("registration")}
    joint.load_state_dict(own)
    image = torch.randn(1, 1, 4, 8, 8)
    for output in (network(image), network.decode(network.encode(image), image)):
        assert torch.equal(output.seg[0], joint(image).seg[0])
        assert torch.equal(output.sr, joint(image).sr)
    assert isinstance(network, JointUNet)


def test_planning_counts_both_images_and_both_ways():
    network = build_network(architecture(), 1, 3, device="meta")
    counted = []
    hooks = []
    for module in network.modules():
        if isinstance(module, torch.nn.Conv3d | torch.nn.ConvTranspose3d):
            hooks.append(module.register_forward_hook(lambda *a: counted.append(a[2].numel())))
    image = torch.zeros(1, 1, 4, 8, 8, device="meta")
    skips = network.encode(image)
    network.registration_decoder(skips, skips)
    network.registration_decoder(skips, skips)
    own = sum(counted)
    joint = JointUNet.compute_conv_feature_map_size(network, (4, 8, 8))
    assert network.compute_conv_feature_map_size((4, 8, 8)) == joint + own


@pytest.mark.parametrize("steps", [-1, 1.5, True, 11])
def test_a_wrong_number_of_steps_is_refused(steps):
    with pytest.raises(ValueError, match="integration_steps is .*whole number from 0"):
        build_network(architecture(integration_steps=steps), 1, 3)


def test_the_class_is_the_one_that_methods_name():
    assert type(build_network(architecture(), 1, 3)) is OneShotNet
