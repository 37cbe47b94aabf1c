"""The network's entry in the plans: nnU-Net's trunk for the LR grid, and our HR stage."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dynamic_network_architectures.building_blocks.helper import (
    convert_dim_to_conv_op,
    get_matching_instancenorm,
)
from nnunetv2.experiment_planning.experiment_planners.network_topology import (
    get_pool_and_conv_props,
)

NETWORK = "srseg.networks.joint_unet.JointUNet"
HR_WIDTHS = (16, 12, 8)  # channels on the HR grid, the default first
_HR_CONVS = 2
# nnU-Net's own numbers for its plain U-Net
_MIN_EDGE = 4
_BASE_FEATURES, _MAX_FEATURES = 32, {2: 512, 3: 320}
_CONVS_PER_STAGE = 2


def joint_architecture(
    stock: dict[str, Any], scale: Sequence[int], hr_width: int = HR_WIDTHS[0]
) -> dict[str, Any]:
    """Return the `architecture` entry of a JointUNet whose trunk a stock entry describes.

    Args:
        stock: `arch_kwargs` and `_kw_requires_import` of nnU-Net's plain U-Net.
        scale: per axis of the configuration.
        hr_width: channels on the HR grid.
    """
    own = {
        "scale": list(scale),
        "trunk": "plain",
        "hr_width": hr_width,
        "hr_num_convs": _HR_CONVS,
        "sr_head": True,
    }
    return {
        "network_class_name": NETWORK,
        "arch_kwargs": {**stock["arch_kwargs"], **own},
        "_kw_requires_import": stock["_kw_requires_import"],
    }


def whole_volume_architecture(
    lr_spacing: Sequence[float], lr_shape: Sequence[int], scale: Sequence[int]
) -> tuple[dict[str, Any], tuple[int, ...]]:
    """Return the architecture nnU-Net's rules give for a whole LR volume, and its padded shape."""
    _, strides, kernel_sizes, padded, _ = get_pool_and_conv_props(
        list(lr_spacing), list(lr_shape), _MIN_EDGE, 999999
    )
    conv = convert_dim_to_conv_op(len(lr_shape))
    norm = get_matching_instancenorm(conv)
    num_stages, most = len(strides), _MAX_FEATURES[len(lr_shape)]
    arch_kwargs = {
        "n_stages": num_stages,
        "features_per_stage": [min(most, _BASE_FEATURES * 2**i) for i in range(num_stages)],
        "conv_op": f"{conv.__module__}.{conv.__name__}",
        "kernel_sizes": kernel_sizes,
        "strides": strides,
        "n_conv_per_stage": [_CONVS_PER_STAGE] * num_stages,
        "n_conv_per_stage_decoder": [_CONVS_PER_STAGE] * (num_stages - 1),
        "conv_bias": True,
        "norm_op": f"{norm.__module__}.{norm.__name__}",
        "norm_op_kwargs": {"eps": 1e-5, "affine": True},
        "dropout_op": None,
        "dropout_op_kwargs": None,
        "nonlin": "torch.nn.LeakyReLU",
        "nonlin_kwargs": {"inplace": True},
    }
    stock = {
        "arch_kwargs": arch_kwargs,
        "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
    }
    return joint_architecture(stock, scale), tuple(int(n) for n in padded)
