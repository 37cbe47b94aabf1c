"""A tiny planned architecture, and one builder for all tests of networks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from srseg.networks.build import build_network


def tiny_architecture(ndim: int, **changes: Any) -> dict[str, Any]:
    """Return an architecture entry as the plans have it; None in `changes` drops a key."""
    arch_kwargs = {
        "n_stages": 3,
        "features_per_stage": [5, 6, 8],
        "conv_op": f"torch.nn.modules.conv.Conv{ndim}d",
        "kernel_sizes": [[3] * ndim] * 3,
        "strides": [[1] * ndim, [1] * (ndim - 2) + [2, 2], [2] * ndim],
        "n_conv_per_stage": [2, 2, 2],
        "n_conv_per_stage_decoder": [2, 1],
        "conv_bias": True,
        "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{ndim}d",
        "norm_op_kwargs": {"eps": 1e-5, "affine": True},
        "dropout_op": None,
        "dropout_op_kwargs": None,
        "nonlin": "torch.nn.LeakyReLU",
        "nonlin_kwargs": {"inplace": True},
        "scale": [2] * ndim,
        "trunk": "plain",
        "hr_width": 4,
        "sr_head": True,
    }
    imports = changes.pop("_kw_requires_import", ["conv_op", "norm_op", "dropout_op", "nonlin"])
    arch_kwargs |= changes
    return {
        "network_class_name": "srseg.networks.joint_unet.JointUNet",
        "arch_kwargs": {k: v for k, v in arch_kwargs.items() if k not in changes or v is not None},
        "_kw_requires_import": imports,
    }


@pytest.fixture
def architecture() -> Callable[..., dict[str, Any]]:
    return tiny_architecture


@pytest.fixture
def make_network() -> Callable[..., nn.Module]:
    """A function that builds a seeded network from scale, channels, classes and arch_kwargs."""

    def make(
        scale: tuple[int, ...],
        channels: int = 1,
        num_classes: int = 3,
        *,
        network_class: str = "joint_unet.JointUNet",
        deep_supervision: bool = False,
        **changes: Any,
    ) -> nn.Module:
        torch.manual_seed(3)
        planned = tiny_architecture(len(scale), scale=list(scale), **changes)
        planned["network_class_name"] = f"srseg.networks.{network_class}"
        return build_network(planned, channels, num_classes, deep_supervision=deep_supervision)

    return make


@pytest.fixture
def conv_outputs() -> Callable[[nn.Module], list[int]]:
    """A function that returns the list into which a module's convolutions will count."""
    kinds = (nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.ConvTranspose3d)

    def count(network: nn.Module) -> list[int]:
        counted: list[int] = []
        for module in network.modules():
            if isinstance(module, kinds):
                module.register_forward_hook(
                    lambda _m, _i, output: counted.append(output[0].numel())
                )
        return counted

    return count
