"""From the trunk's finest features to logits and SR image on the HR grid.

Nothing here looks further than a few voxels and nothing normalises over the volume (Lim et al.,
"Enhanced deep residual networks for single image super-resolution", CVPRW 2017, found image
networks better without). The stage can therefore be computed slab by slab with `halo` voxels of
context and gives the same numbers as in one piece.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, prod, sqrt

import torch
from dynamic_network_architectures.building_blocks.helper import get_matching_convtransp
from torch import nn

from srseg.networks.interpolation import Interpolation
from srseg.networks.precision import full_precision


class HRStage(nn.Module):
    """Sub-pixel upsampling, a few convolutions and two 1x1 heads; no normalisation.

    The sub-pixel step is a transposed convolution with kernel = stride = `scale`. That is the
    1x1 convolution to `width * prod(scale)` channels followed by a pixel shuffle (Shi et al.,
    CVPR 2016), without the copy that shuffles, and it keeps a channels-last layout.

    The SR image is the interpolated input plus a residual whose head starts at zero: an untrained
    stage interpolates exactly.

    Args:
        in_channels: channels of the trunk's finest features.
        width: channels on the HR grid, which set the cost of the stage.
        num_classes: channels K of the logits.
        num_sr_channels: channels C of the SR image; 0 builds no SR head.
        conv_op: `nn.Conv2d` or `nn.Conv3d`.
        scale: refinement per axis; all ones leaves the sub-pixel step out.
        kernel_size: odd size per axis of the HR convolutions.
        num_convs: HR convolutions, at least 1.
        nonlin: makes one activation.
    """

    def __init__(  # every argument is one decision of the plans
        self,
        in_channels: int,
        width: int,
        *,
        num_classes: int,
        num_sr_channels: int,
        conv_op: type[nn.Module],
        scale: Sequence[int],
        kernel_size: Sequence[int],
        num_convs: int,
        nonlin: type[nn.Module],
        nonlin_kwargs: dict | None = None,
    ) -> None:
        super().__init__()
        self.scale, self.kernel_size = tuple(scale), tuple(kernel_size)
        self.upsample = None
        channels = in_channels
        if prod(self.scale) > 1:
            transposed = get_matching_convtransp(conv_op)
            self.upsample = transposed(channels, width, self.scale, self.scale)
            channels = width
        layers: list[nn.Module] = []
        for _ in range(num_convs):
            padding = tuple(size // 2 for size in self.kernel_size)
            layers.append(conv_op(channels, width, self.kernel_size, padding=padding))
            layers.append(nonlin(**(nonlin_kwargs or {})))
            channels = width
        self.convs = nn.Sequential(*layers)
        self.num_convs, self.width = num_convs, width
        self.seg_head = conv_op(width, num_classes, 1)
        self.sr_head = conv_op(width, num_sr_channels, 1) if num_sr_channels else None
        self.interpolation = Interpolation(self.scale) if num_sr_channels else None

    @property
    def halo(self) -> tuple[int, ...]:
        """LR voxels of context per axis and side with which a slab equals the whole exactly."""
        reach = self.interpolation.reach if self.interpolation else (0,) * len(self.scale)
        return tuple(
            max(ceil(self.num_convs * (size // 2) / factor), image_reach)
            for size, factor, image_reach in zip(self.kernel_size, self.scale, reach, strict=True)
        )

    def forward(
        self, features: torch.Tensor, lr_image: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return float32 logits (B, K, Z, Y, X) and SR image (B, C, Z, Y, X) or None.

        Args:
            features: (B, F, z, y, x), the trunk's finest features, or a slab of them.
            lr_image: (B, C, z, y, x), the same region of the input.

        Raises:
            ValueError: if both cover different regions; they would broadcast silently.
        """
        if features.shape[2:] != lr_image.shape[2:] or len(features) != len(lr_image):
            raise ValueError(
                f"features {tuple(features.shape)} and LR image {tuple(lr_image.shape)} "
                "must agree in batch and spatial shape."
            )
        hidden = features if self.upsample is None else self.upsample(features)
        hidden = self.convs(hidden)
        with full_precision(hidden.device.type):
            hidden = hidden.float()
            logits = self.seg_head(hidden)
            if self.sr_head is None:
                return logits, None
            return logits, self.interpolation(lr_image) + self.sr_head(hidden)

    @torch.no_grad()
    def start_as_interpolation(self) -> None:
        """Set the weights that must not be random: a smooth upsampling, a zero residual.

        The sub-pixel weights are equal for all sub-positions (ICNR, Aitken et al.,
        arXiv:1707.02937): the first upsampling is nearest neighbour, without a checkerboard.
        """
        if self.upsample is not None:
            weight = self.upsample.weight  # (in, out, *scale)
            std = sqrt(2 / (1 + 0.01**2) / weight.shape[0])  # He, for leaky slope 0.01
            kernel = torch.randn(weight.shape[:2], device=weight.device) * std
            weight.copy_(kernel.reshape(*kernel.shape, *(1 for _ in self.scale)).expand_as(weight))
            nn.init.zeros_(self.upsample.bias)
        if self.sr_head is not None:
            nn.init.zeros_(self.sr_head.weight)
            nn.init.zeros_(self.sr_head.bias)

    def compute_conv_feature_map_size(self, lr_shape: Sequence[int]) -> int:
        """Return the elements of all convolution outputs for one LR input of `lr_shape`."""
        hr_voxels = prod(lr_shape) * prod(self.scale)
        maps = self.width * (self.num_convs + (self.upsample is not None))
        heads = self.seg_head.out_channels + (self.sr_head.out_channels if self.sr_head else 0)
        return hr_voxels * (maps + heads)
