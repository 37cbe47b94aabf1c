from __future__ import annotations

import sys

import pytest
import torch
from torch import nn

from srseg.networks.build import build_network, resolve_module_class
from srseg.networks.joint_unet import JointUNet


@pytest.mark.parametrize("ndim", [2, 3])
def test_plans_become_a_network(architecture, ndim):
    planned = architecture(ndim)
    network = build_network(planned, 2, 4, deep_supervision=True)
    assert isinstance(network, JointUNet)
    assert network.decoder.deep_supervision
    assert isinstance(network.hr_stage.convs[1], nn.LeakyReLU)
    assert (network.input_channels, network.num_classes) == (2, 4)
    assert planned == architecture(ndim)  # left as it was


def test_meta_device_counts_without_weights(architecture):
    planned = architecture(3)
    network = build_network(planned, 1, 3, device="meta")
    assert all(tensor.is_meta for tensor in [*network.parameters(), *network.buffers()])
    shape = (4, 8, 12)
    real = build_network(planned, 1, 3)
    expected = real.compute_conv_feature_map_size(shape)
    assert network.compute_conv_feature_map_size(shape) == expected
    assert network(torch.zeros(1, 1, *shape, device="meta")).sr.shape == (1, 1, 8, 16, 24)


def test_stock_networks_are_built_and_initialised(architecture):
    planned = architecture(3, scale=None, trunk=None, hr_width=None, sr_head=None)
    planned["network_class_name"] = "dynamic_network_architectures.architectures.unet.PlainConvUNet"
    network = build_network(planned, 1, 3, deep_supervision=True)
    logits = network(torch.randn(1, 1, 4, 8, 12))
    assert [x.shape[2:] for x in logits] == [(4, 8, 12), (4, 4, 6)]
    biases = [m.bias for m in network.modules() if isinstance(m, nn.Conv3d)]
    assert not any(bias.any() for bias in biases)  # nnU-Net's, unlike torch's


@pytest.mark.parametrize(
    "path", ["torch.nn.LeakyReLU", "torch.nn.modules.conv.Conv2d", "torch.nn.Conv3d"]
)
def test_layers_of_torch_are_resolved(path):
    assert resolve_module_class(path).__name__ == path.rpartition(".")[2]


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("os.system", "is not allowed; allowed are"),
        ("torch.hub.load", "is not allowed"),
        ("torch.nnx.LeakyReLU", "is not allowed"),
        ("srseg.networks_evil.Net", "is not allowed"),
        (None, "is not allowed"),
        (3, "is not allowed"),
        ("torch.nn.LeakyRelu", "cannot be found: .*LeakyRelu"),
        ("torch.nn.layers.LeakyReLU", "cannot be found"),
        ("torch.nn..LeakyReLU", "cannot be found"),
        ("torch.nn.", "cannot be found"),
        ("srseg.networks.joint_unet.JointUnet", "cannot be found"),
        ("srseg.networks.build.importlib", "is not a torch.nn.Module class"),
        ("torch.nn.init.zeros_", "is not a torch.nn.Module class"),
        ("torch.nn.Parameter", "is not a torch.nn.Module class"),
        ("dynamic_network_architectures.architectures.primus.Primus", "needs timm"),
    ],
)
def test_everything_else_is_refused(path, message):
    with pytest.raises(ValueError, match=message):
        resolve_module_class(path)


def test_foreign_modules_are_not_even_imported(tmp_path, monkeypatch):
    (tmp_path / "evil.py").write_text("class Net: pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match="is not allowed"):
        resolve_module_class("evil.Net")
    assert "evil" not in sys.modules


def test_required_imports_pass_the_allow_list_too(architecture):
    with pytest.raises(ValueError, match=r"'os\.abort' of the plans or the method is not allowed"):
        build_network(architecture(3, nonlin="os.abort"), 1, 2)
    planned = architecture(3)
    planned["_kw_requires_import"] = ["conv_op", "norm"]
    with pytest.raises(ValueError, match="names 'norm', which arch_kwargs do not have"):
        build_network(planned, 1, 2)


def test_unknown_and_missing_arguments_are_named(architecture):
    with pytest.raises(ValueError, match=r"unknown argument hr_widht for JointUNet; known: .*hr_w"):
        build_network(architecture(3, hr_widht=8), 1, 2)
    with pytest.raises(ValueError, match="JointUNet needs scale, strides in the arch_kwargs"):
        build_network(architecture(3, scale=None, strides=None), 1, 2)


def test_keys_of_the_architecture_are_strict(architecture):
    planned = architecture(3)
    del planned["arch_kwargs"]
    with pytest.raises(ValueError, match="needed are .*arch_kwargs"):
        build_network(planned, 1, 2)
    with pytest.raises(ValueError, match="has the keys .*extra"):
        build_network(architecture(3) | {"extra": 1}, 1, 2)
