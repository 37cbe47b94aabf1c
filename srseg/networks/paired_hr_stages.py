"""The HR stages of two decoders, one per task, seen from outside as one stage."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch
from torch import nn

from srseg.networks.hr_stage import HRStage, check_same_region
from srseg.networks.sr_into_seg import SRIntoSeg


class PairedHRStages(nn.Module):
    """An HR stage per task, side by side, with an optional gate from one into the other.

    As local as each of them: a slab with `halo` voxels of context equals the slab of the whole.

    Args:
        segmentation: makes logits only.
        super_resolution: makes the SR image only; None for a network that only segments.
        gate: maps the SR stage's last features to what the other stage's are multiplied by; it
            must look at single voxels. None for none.
        sr_into_seg: lets the segmentation read the SR image too. None for none.
    """

    def __init__(
        self,
        segmentation: HRStage,
        super_resolution: HRStage | None,
        gate: nn.Module | None = None,
        sr_into_seg: SRIntoSeg | None = None,
    ) -> None:
        super().__init__()
        self.segmentation = segmentation
        self.super_resolution = super_resolution
        self.gate = gate
        self.sr_into_seg = sr_into_seg

    @property
    def halo(self) -> tuple[int, ...]:
        """LR voxels of context per axis and side with which a slab equals the whole exactly."""
        halos = [stage.halo for stage in self._stages]
        if self.sr_into_seg is not None:
            halos.append(self.sr_into_seg.halo(self.super_resolution))
        return tuple(max(axis) for axis in zip(*halos, strict=True))

    @property
    def segmentation_reads_sr(self) -> bool:
        """Whether there are no logits without the SR branch."""
        return self.gate is not None or self.sr_into_seg is not None

    @property
    def _stages(self) -> list[HRStage]:
        return [stage for stage in (self.segmentation, self.super_resolution) if stage is not None]

    def forward(
        self, features: torch.Tensor, lr_image: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return float32 logits (B, K, Z, Y, X) and SR image (B, C, Z, Y, X) or None.

        Args:
            features: (B, F, z, y, x), the segmentation decoder's finest features, then the SR
                decoder's; without the latter there is no SR image. A slab will do.
            lr_image: (B, C, z, y, x), the same region of the input.

        Raises:
            ValueError: if both cover different regions, or a gate has no SR features.
        """
        check_same_region(features, lr_image)
        own = features[:, : self.segmentation.in_channels]
        other = features[:, self.segmentation.in_channels :]
        image, hidden = None, self.segmentation.hidden(own)
        if other.shape[1]:
            sr_hidden = self.super_resolution.hidden(other)
            if self.gate is not None:
                hidden = hidden * self.gate(sr_hidden)
            _, image = self.super_resolution.heads(sr_hidden, lr_image)
        if self.sr_into_seg is not None:
            hidden = self.sr_into_seg(hidden, image)
        logits, _ = self.segmentation.heads(hidden, lr_image)
        return logits, image

    def start_as_interpolation(self) -> None:
        """Set the weights that must not be random, see `HRStage`."""
        for stage in self._stages:
            stage.start_as_interpolation()

    def compute_conv_feature_map_size(self, lr_shape: Sequence[int]) -> int:
        """Return the elements of all convolution and head outputs for one input of `lr_shape`."""
        total = sum(stage.compute_conv_feature_map_size(lr_shape) for stage in self._stages)
        hr_voxels = prod(lr_shape) * prod(self.segmentation.scale)
        if self.sr_into_seg is not None:
            total += self.sr_into_seg.conv.out_channels * hr_voxels
        return total + hr_voxels * (self.gate is not None)
