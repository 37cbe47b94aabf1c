"""Super-resolution alone, as a joint network: its segmentation is background everywhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

from srseg.networks.arguments import (
    check_input,
    check_patch,
    num_axes,
    odd_hr_kernel,
    per_stage_and_axis,
    scale_of_axes,
)
from srseg.networks.encoder import initialize_as_nnunet
from srseg.networks.output import JointOutput
from srseg.networks.segmenter import EncoderDecoder
from srseg.networks.signature import takes_arguments_of
from srseg.networks.sr_networks import build_sr_network


@takes_arguments_of(EncoderDecoder)
class SROnly(nn.Module):
    """An SR network where pipelines expect a joint one: for methods with one task.

    Maps (B, C, z, y, x) to `JointOutput` on the grid `scale` times finer. The logits are
    constants that decide for background, or for no region: an untrained head would write
    random labels.

    Takes the arguments of a planned trunk; of these only `conv_op`, `n_stages`, `kernel_sizes` and
    `strides` say something to an SR network.

    Args:
        input_channels: channels C of the LR and of the SR image.
        num_classes: channels K of the logits.
        scale: whole-number refinement per axis.
        sr_network: {"name": a key of `SR_NETWORKS`, its options}; None is "edsr".
        region_based: whether the labels are regions.
        degradation, hr_spacing, hr_kernel_size: as in `SerialSRSeg`.
        sr_head: must be true.
        hr_width, hr_num_convs: not used.

    Raises:
        ValueError: if the arguments contradict each other.
    """

    hr_halo = None
    segments = False

    def __init__(
        self,
        input_channels: int,
        num_classes: int,
        *,
        scale: Sequence[int],
        sr_network: Mapping[str, Any] | None = None,
        region_based: bool = False,
        degradation: Mapping[str, Any] | None = None,
        hr_spacing: Sequence[float] | None = None,
        hr_kernel_size: Sequence[int] | None = None,
        sr_head: bool = True,
        hr_width: int = 16,
        hr_num_convs: int = 2,
        deep_supervision: bool = False,
        **trunk: Any,
    ) -> None:
        super().__init__()
        if not sr_head:
            raise ValueError("SROnly got sr_head false; without its SR image nothing is left.")
        ndim, stages = num_axes(trunk["conv_op"]), trunk["n_stages"]
        kernels = per_stage_and_axis("kernel_sizes", trunk["kernel_sizes"], stages, ndim)
        self.scale = scale_of_axes(scale, ndim)
        self.sr_network = build_sr_network(
            {"name": "edsr"} if sr_network is None else sr_network,
            num_channels=input_channels,
            conv_op=trunk["conv_op"],
            scale=self.scale,
            kernel_size=odd_hr_kernel(hr_kernel_size, kernels[0], self.scale),
            strides=per_stage_and_axis("strides", trunk["strides"], stages, ndim),
            degradation=degradation,
            hr_spacing=hr_spacing,
        )
        logits = -torch.ones(num_classes) if region_based else torch.eye(num_classes)[0]
        self.register_buffer("logits", logits, persistent=False)
        self.input_channels, self.num_classes = input_channels, num_classes
        self.num_sr_channels = input_channels
        self.lr_divisor = (1,) * ndim
        self.decoder = SimpleNamespace(deep_supervision=deep_supervision)  # nnU-Net's switch
        initialize_as_nnunet(self)
        self.sr_network.start_as_interpolation()

    @property
    def output_scales(self) -> list[list[float]]:
        """Sizes of the entries of `JointOutput.seg` relative to the HR grid: one, the same."""
        return [[1.0] * len(self.scale)]

    def forward(self, lr_image: torch.Tensor) -> JointOutput:
        """Return constant logits and the SR image of `lr_image` (B, C, z, y, x).

        Raises:
            ValueError: if the shape does not fit the network.
        """
        check_input(lr_image, self.input_channels, self.lr_divisor)
        sr_image = self.sr_network(lr_image)
        logits = self.logits.reshape(1, -1, *(1,) * len(self.scale))
        return JointOutput([logits.expand(len(sr_image), -1, *sr_image.shape[2:])], sr_image)

    def compute_conv_feature_map_size(self, lr_patch: Sequence[int]) -> int:
        """Return the elements of all convolution outputs for one LR patch.

        Raises:
            ValueError: if the patch has another number of axes than the network.
        """
        check_patch(lr_patch, len(self.scale))
        return self.sr_network.compute_conv_feature_map_size(lr_patch)
