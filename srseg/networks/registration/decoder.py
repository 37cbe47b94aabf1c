"""The decoder that turns the features of two images into the displacement between them."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import torch
from dynamic_network_architectures.building_blocks.helper import get_matching_convtransp
from dynamic_network_architectures.building_blocks.simple_conv_blocks import StackedConvBlocks
from torch import nn

from srseg.networks.arguments import num_axes
from srseg.networks.precision import full_precision

FLOW_STD = 1e-5  # of the flow layer's first weights, VoxelMorph's: begins next to the identity


class RegistrationDecoder(nn.Module):
    """U-Net decoder over both images' skips: from (moving, fixed) to a field on the fixed grid.

    One block a stage on [up-sampled, moving's skip, fixed's skip], then a convolution to one
    channel per axis. Swapping the images gives the reverse field.

    Args:
        features_per_stage: channels of the encoder's stages, finest first.
        strides: of the encoder's stages, per axis.
        kernel_sizes: of the encoder's stages, per axis.
        block_options: `conv_op`, norm, dropout and nonlinearity as `StackedConvBlocks` takes them.
    """

    def __init__(
        self,
        features_per_stage: Sequence[int],
        *,
        strides: Sequence[Sequence[int]],
        kernel_sizes: Sequence[Sequence[int]],
        block_options: dict[str, Any],
    ) -> None:
        super().__init__()
        self.strides = [tuple(stride) for stride in strides]
        conv_op, bias = block_options["conv_op"], block_options["conv_bias"]
        transposed = get_matching_convtransp(conv_op)
        self.transpconvs, self.stages = nn.ModuleList(), nn.ModuleList()
        channels = 2 * features_per_stage[-1]
        for below in range(len(features_per_stage) - 1, 0, -1):
            own, stride = features_per_stage[below - 1], self.strides[below]
            self.transpconvs.append(transposed(channels, own, stride, stride, bias=bias))
            self.stages.append(
                StackedConvBlocks(
                    1,
                    input_channels=3 * own,
                    output_channels=own,
                    kernel_size=kernel_sizes[below - 1],
                    initial_stride=1,
                    **block_options,
                )
            )
            channels = own
        axes = num_axes(conv_op)
        self.flow = conv_op(channels, axes, 3, padding=1)

    def start_as_identity(self) -> None:
        """Set the flow layer's first weights; called after all others are set."""
        nn.init.normal_(self.flow.weight, std=FLOW_STD)
        nn.init.zeros_(self.flow.bias)

    def forward(
        self, moving: Sequence[torch.Tensor], fixed: Sequence[torch.Tensor]
    ) -> torch.Tensor:
        """Return (B, D, z, y, x) float32: where the moving image is read, in LR voxels.

        Args:
            moving: the encoder's features of the moving images, finest first.
            fixed: those of the fixed images.
        """
        feature = torch.cat((moving[-1], fixed[-1]), 1)
        skips = zip(reversed(moving[:-1]), reversed(fixed[:-1]), strict=True)
        for pair, transpconv, stage in zip(skips, self.transpconvs, self.stages, strict=True):
            feature = stage(torch.cat((transpconv(feature), *pair), 1))
        with full_precision(feature.device.type):
            return self.flow(feature.float())

    def compute_conv_feature_map_size(self, lr_shape: Sequence[int]) -> int:
        """Return the elements of all convolution outputs for one pair of LR images."""
        total, shape = self.flow.out_channels * prod(lr_shape), tuple(lr_shape)
        for i, stage in reversed(list(enumerate(self.stages))):
            stride = self.strides[len(self.stages) - 1 - i]
            shape = tuple(n // s for n, s in zip(shape, stride, strict=True))
            total += int(stage.compute_conv_feature_map_size(shape))
            total += self.transpconvs[i].out_channels * prod(shape)
        return total
