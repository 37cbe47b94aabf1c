"""The SR image as something the segmentation reads, on the HR grid and as local as the HR stage."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from math import ceil, prod
from typing import Any

import torch
from torch import nn

from srseg.networks.hr_stage import HRStage, channels_last_on_cpu, pointwise
from srseg.networks.input_clip import InputClip
from srseg.networks.precision import full_precision


class SRIntoSeg(nn.Module):
    """One convolution over the segmentation's last features and the SR image, and an activation.

    A local convolution, because a 1x1 head could only add a multiple of the intensity.

    The image is not detached: where it keeps to the bounds, the segmentation's gradient reaches
    the SR branch. So the SR image may serve the segmentation at the cost of its own error, and
    the losses' weights decide how far.

    Args:
        stage: makes the features that the SR image joins; its convolutions are the model.
        num_channels: channels C of the SR image.
        input_clip: the trunk's bounds per channel; what the segmentation reads keeps to them.
    """

    def __init__(
        self,
        stage: HRStage,
        num_channels: int,
        input_clip: Sequence[Sequence[float] | None] | None = None,
    ) -> None:
        super().__init__()
        width = stage.seg_head.in_features
        conv, nonlin = stage.convs[-2:]
        self.clip = InputClip(num_channels, input_clip)
        self.conv = type(conv)(width + num_channels, width, conv.kernel_size, padding=conv.padding)
        self.nonlin = deepcopy(nonlin)

    def forward(self, hidden: torch.Tensor, sr_image: torch.Tensor) -> torch.Tensor:
        """Return new features (B, width, Z, Y, X) for `hidden`, of the same shape."""
        both = torch.cat((hidden, self.clip(sr_image).to(hidden.dtype)), 1)
        return self.nonlin(self.conv(channels_last_on_cpu(both)))

    def halo(self, stage: HRStage) -> tuple[int, ...]:
        """Return the LR voxels of context of the logits when `stage` makes the SR image."""
        margin = [size // 2 for size in stage.kernel_size]
        image_reach = stage.interpolation.reach_beyond(margin)
        return tuple(
            max(ceil((stage.num_convs + 1) * more / factor), reach)
            for more, factor, reach in zip(margin, stage.scale, image_reach, strict=True)
        )


class SeeingHRStage(HRStage):
    """An HR stage for both tasks whose segmentation sees the SR image.

    Args:
        in_channels: as in `HRStage`.
        width: as in `HRStage`.
        input_clip: the trunk's bounds per channel.
        **options: of `HRStage`.
    """

    def __init__(
        self,
        in_channels: int,
        width: int,
        *,
        input_clip: Sequence[Sequence[float] | None] | None,
        **options: Any,
    ) -> None:
        super().__init__(in_channels, width, **options)
        self.sr_into_seg = SRIntoSeg(self, options["num_sr_channels"], input_clip)

    @property
    def halo(self) -> tuple[int, ...]:
        """LR voxels of context per axis and side with which a slab equals the whole exactly."""
        return self.sr_into_seg.halo(self)  # never less than without it

    def heads(
        self, hidden: torch.Tensor, lr_image: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return logits and SR image as `forward`, from the result of `hidden`."""
        widths = [self.seg_head.in_features, self.sr_head.in_features]
        seg_hidden, sr_hidden = hidden.split(widths, 1)
        with full_precision(hidden.device.type):
            residual = pointwise(sr_hidden.float(), [self.sr_head])[0]
            sr_image = self.interpolation(lr_image) + residual
        seg_hidden = self.sr_into_seg(seg_hidden, sr_image)
        with full_precision(hidden.device.type):
            return pointwise(seg_hidden.float(), [self.seg_head])[0], sr_image

    def compute_conv_feature_map_size(self, lr_shape: Sequence[int]) -> int:
        """Return the elements of all convolution and head outputs for one input of `lr_shape`."""
        more = self.sr_into_seg.conv.out_channels * prod(lr_shape) * prod(self.scale)
        return super().compute_conv_feature_map_size(lr_shape) + more
