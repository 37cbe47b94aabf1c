"""Segment, then enlarge: nnU-Net on the LR grid, its probabilities interpolated. A baseline."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from srseg.networks.arguments import check_input, check_patch, scale_of_axes
from srseg.networks.encoder import drop_aliases, initialize_as_nnunet
from srseg.networks.joint_unet import deep_supervision_scales
from srseg.networks.output import JointOutput
from srseg.networks.precision import full_precision
from srseg.networks.segmenter import EncoderDecoder
from srseg.networks.signature import takes_arguments_of

_SMALLEST_PROBABILITY = 1e-6  # keeps logits finite, and 1 - p apart from 1 in float32
_LINEAR = {2: "bilinear", 3: "trilinear"}


class ProbabilityUpsampling(nn.Module):
    """LR logits to HR logits whose probabilities are the LR ones interpolated linearly.

    What people do with a mask that is too coarse, at its best: interpolated logits would move a
    surface by how sure the network is on either side. Each HR voxel sees its LR voxel and the next
    one per axis, so slabs with `halo` equal the whole.

    Args:
        scale: refinement per axis.
        region_based: sigmoid per channel instead of softmax over channels.
    """

    def __init__(self, scale: Sequence[int], *, region_based: bool) -> None:
        super().__init__()
        self.scale, self.region_based = tuple(scale), region_based

    @property
    def halo(self) -> tuple[int, ...]:
        """LR voxels of context per axis and side with which a slab equals the whole exactly."""
        return tuple(int(factor > 1) for factor in self.scale)

    def forward(
        self, lr_logits: torch.Tensor, lr_image: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, None]:
        """Return float32 HR logits (B, K, Z, Y, X), and None for the SR image.

        Args:
            lr_logits: (B, K, z, y, x), or a slab of them.
            lr_image: not used; HR stages of other networks read it.
        """
        shape = [n * factor for n, factor in zip(lr_logits.shape[2:], self.scale, strict=True)]
        with full_precision(lr_logits.device.type):
            logits = lr_logits.float()
            lr_probabilities = logits.sigmoid() if self.region_based else logits.softmax(1)
            # half-pixel centres are faces that coincide
            probabilities = F.interpolate(
                lr_probabilities, size=shape, mode=_LINEAR[len(shape)], align_corners=False
            )
            if self.region_based:
                return probabilities.logit(_SMALLEST_PROBABILITY), None
            return probabilities.clamp_min(_SMALLEST_PROBABILITY).log(), None


@takes_arguments_of(EncoderDecoder)
class LRSegmentation(EncoderDecoder):
    """nnU-Net on the LR grid; only its finished probabilities come to the HR grid.

    Maps (B, C, z, y, x) to `JointOutput` with HR logits first, then, with deep supervision, the
    LR logits and coarser ones, and no SR image. `JointUNet` has the same entries, so a loss finds
    the LR logits in the second; the HR logits pass gradients too.

    Args:
        input_channels: channels C of the LR image.
        num_classes: channels K of the logits.
        scale: whole-number refinement per axis.
        region_based: whether the labels are regions that overlap (sigmoid), not classes (softmax).
        sr_head, hr_width, hr_num_convs, hr_kernel_size: not used, nothing is learnt on the HR
            grid.
        **options: as in `JointUNet`, with `input_clip`; see `EncoderDecoder`.
        deep_supervision: adds LR logits and those of coarser stages.

    Raises:
        ValueError: if the arguments contradict each other.
    """

    num_sr_channels = 0

    def __init__(
        self,
        input_channels: int,
        num_classes: int,
        *,
        scale: Sequence[int],
        region_based: bool = False,
        sr_head: bool = False,
        hr_width: int = 16,
        hr_num_convs: int = 2,
        hr_kernel_size: Sequence[int] | None = None,
        deep_supervision: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(input_channels, num_classes, deep_supervision=deep_supervision, **options)
        self.scale = scale_of_axes(scale, len(self.divisor))
        self.hr_stage = ProbabilityUpsampling(self.scale, region_based=region_based)
        self.hr_halo = self.hr_stage.halo
        self.lr_divisor = self.divisor
        drop_aliases(self)
        initialize_as_nnunet(self)

    @property
    def output_scales(self) -> list[list[float]]:
        """Sizes of the entries of `JointOutput.seg` relative to the HR grid, finest first."""
        return deep_supervision_scales(self.strides, self.scale)

    def trunk(self, lr_image: torch.Tensor) -> list[torch.Tensor]:
        """Return the float32 logits of the LR grid, then with deep supervision coarser ones.

        Args:
            lr_image: (B, C, z, y, x), every axis a multiple of `lr_divisor`.

        Raises:
            ValueError: if the shape does not fit the network.
        """
        check_input(lr_image, self.input_channels, self.lr_divisor)
        return self.stage_logits(lr_image)

    def forward(self, lr_image: torch.Tensor) -> JointOutput:
        """Return the logits of `lr_image` (B, C, z, y, x) on the HR grid, without an SR image."""
        lr_logits = self.trunk(lr_image)
        hr_logits, _ = self.hr_stage(lr_logits[0])
        # one stage alone has no deep supervision, as in JointUNet
        supervised = self.decoder.deep_supervision and self.head is None
        return JointOutput([hr_logits, *(lr_logits if supervised else [])], None)

    def compute_conv_feature_map_size(self, lr_patch: Sequence[int]) -> int:
        """Return the elements of all convolution outputs, and of the HR logits, for one LR patch.

        Raises:
            ValueError: if the patch has another number of axes than the network.
        """
        check_patch(lr_patch, len(self.scale))
        hr_logits = self.num_classes * prod(lr_patch) * prod(self.scale)
        return self._count_elements(lr_patch) + hr_logits
