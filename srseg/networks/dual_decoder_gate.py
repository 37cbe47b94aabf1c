"""DDANet's idea: what the reconstruction branch sees decides where the segmentation looks.

After Tomar et al., "DDANet: Dual decoder attention network for automatic polyp segmentation"
(ICPR workshops 2021), written anew from the description. Its reconstruction of the input image
is the SR image here.
"""

from __future__ import annotations

from math import prod
from typing import Any

import torch
from torch import nn

from srseg.networks.encoder import initialize_as_nnunet
from srseg.networks.signature import takes_arguments_of
from srseg.networks.two_decoders import PFSegNet


class Gate(nn.Module):
    """One attention map per voxel, sigmoid(1x1 convolution), from the features of a voxel.

    Args:
        conv_op: `nn.Conv2d` or `nn.Conv3d`.
        channels: of the features.
    """

    def __init__(self, conv_op: type[nn.Module], channels: int) -> None:
        super().__init__()
        self.map = conv_op(channels, 1, 1)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return factors (B, 1, ...) between 0 and 1 for `features` (B, F, ...)."""
        return torch.sigmoid(self.map(features))


@takes_arguments_of(PFSegNet)
class DualDecoderGate(PFSegNet):
    """Two decoders, of which the SR decoder gates the segmentation decoder at each level.

    At every level, and once more on the HR grid, the segmentation's features are multiplied by
    sigmoid(1x1 convolution) of the SR branch's features of the same grid. The gates look at single
    voxels, so the HR part stays local.

    Through the gates the segmentation's gradients reach the SR branch. On a toy case with equal
    weights they held the SR residual back, with ten times the weight for SR they did not.

    Takes `PFSegNet`'s arguments. With the attribute `super_resolves` off only the SR image is
    left out: the segmentation needs the branch.

    Raises:
        ValueError: if the arguments contradict each other, or `sr_head` is off.
    """

    def __init__(self, input_channels: int, num_classes: int, **planned: Any) -> None:
        if not planned.get("sr_head", True):
            raise ValueError(
                "DualDecoderGate got sr_head false; its segmentation is gated by the SR branch, "
                "so sr_head must be true."
            )
        super().__init__(input_channels, num_classes, **planned)
        conv_op = self.encoder.conv_op
        stages = reversed(self.sr_decoder.transpconvs)
        self.gates = nn.ModuleList(Gate(conv_op, stage.out_channels) for stage in stages)
        self.hr_stage.gate = Gate(conv_op, self.hr_stage.super_resolution.width)
        for gate in (self.gates, self.hr_stage.gate):
            initialize_as_nnunet(gate)

    def _gates(self, sr_features: list[torch.Tensor]) -> list[torch.Tensor]:
        # one stage alone has features, but no decoder stage: zip ends at once
        return [gate(feature) for gate, feature in zip(self.gates, sr_features, strict=False)]

    def compute_conv_feature_map_size(self, lr_patch: list[int] | tuple[int, ...]) -> int:
        """Return the elements of all convolution outputs for one LR patch, as `PFSegNet` does."""
        total, shape = super().compute_conv_feature_map_size(lr_patch), tuple(lr_patch)
        for stride in self.decoder.strides[: len(self.gates)]:
            shape = tuple(n // s for n, s in zip(shape, stride, strict=True))
            total += prod(shape)
        return total
