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

from srseg.networks.encoder import is_weightless
from srseg.networks.interpolation import Interpolation
from srseg.networks.precision import full_precision


class HRStage(nn.Module):
    """Sub-pixel upsampling, a few convolutions and a 1x1 head per task; no normalisation.

    The sub-pixel step is a transposed convolution with kernel = stride = `scale`. That is the
    1x1 convolution to `width * prod(scale)` channels followed by a pixel shuffle (Shi et al.,
    CVPR 2016), without the copy that shuffles, and it keeps a channels-last layout.

    The SR image is the interpolated input plus a residual whose head starts at zero: an untrained
    stage interpolates exactly.

    Args:
        in_channels: channels of the trunk's finest features.
        width: channels on the HR grid, which set the cost of the stage; with both heads the last
            convolution makes half of them for each task.
        num_classes: channels K of the logits; 0 builds no segmentation head.
        num_sr_channels: channels C of the SR image; 0 builds no SR head.
        conv_op: `nn.Conv2d` or `nn.Conv3d`.
        scale: refinement per axis; all ones leaves the sub-pixel step out.
        kernel_size: odd size per axis of the HR convolutions.
        num_convs: HR convolutions, at least 1.
        nonlin: makes one activation.

    Raises:
        ValueError: if `width` leaves a task no channel, or there is no task.
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
        if not (num_classes or num_sr_channels):
            raise ValueError("an HR stage needs classes or SR channels, it got 0 of both.")
        if num_classes and num_sr_channels and width < 2:
            raise ValueError(f"hr_width is {width}; two tasks need at least 2 channels.")
        self.scale, self.kernel_size = tuple(scale), tuple(kernel_size)
        self.in_channels = in_channels
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
        # The last convolution makes each task's channels apart: where both read the same ones,
        # the segmentation's far larger gradients kept the SR residual from being learnt at all
        # (docs/results.md, "How the tasks share the HR stage").
        sr_width = (width // 2 if num_classes else width) if num_sr_channels else 0
        self.seg_head = nn.Linear(width - sr_width, num_classes) if num_classes else None
        self.sr_head = nn.Linear(sr_width, num_sr_channels) if num_sr_channels else None
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
    ) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        """Return float32 logits (B, K, Z, Y, X) and SR image (B, C, Z, Y, X), None without head.

        Args:
            features: (B, F, z, y, x), the trunk's finest features, or a slab of them.
            lr_image: (B, C, z, y, x), the same region of the input.

        Raises:
            ValueError: if both cover different regions; they would broadcast silently.
        """
        check_same_region(features, lr_image)
        return self.heads(self.hidden(features), lr_image)

    def hidden(self, features: torch.Tensor) -> torch.Tensor:
        """Return what the heads read, (B, width, Z, Y, X), for features (B, F, z, y, x)."""
        hidden = channels_last_on_cpu(features)
        hidden = hidden if self.upsample is None else self.upsample(hidden)
        return self.convs(hidden)

    def heads(
        self, hidden: torch.Tensor, lr_image: torch.Tensor
    ) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        """Return logits and SR image as `forward`, from the result of `hidden`."""
        with full_precision(hidden.device.type):
            heads = [head for head in (self.seg_head, self.sr_head) if head is not None]
            results = list(pointwise(hidden.float(), heads))
            image = self.interpolation(lr_image) + results.pop() if self.sr_head else None
            return results[0] if results else None, image

    @torch.no_grad()
    def start_as_interpolation(self) -> None:
        """Set the weights that must not be random: a smooth upsampling, a zero residual.

        The sub-pixel weights are equal for all sub-positions (ICNR, Aitken et al.,
        arXiv:1707.02937): the first upsampling is nearest neighbour, without a checkerboard.
        """
        if is_weightless(self):
            return
        if self.upsample is not None:
            weight = self.upsample.weight  # (in, out, *scale)
            std = sqrt(2 / (1 + 0.01**2) / weight.shape[0])  # He, for leaky slope 0.01
            kernel = torch.randn(weight.shape[:2], device=weight.device) * std
            weight.copy_(kernel.reshape(*kernel.shape, *(1 for _ in self.scale)).expand_as(weight))
            nn.init.zeros_(self.upsample.bias)
        if self.seg_head is not None:
            nn.init.kaiming_normal_(self.seg_head.weight, a=0.01)  # as nnU-Net's 1x1 convolutions
            nn.init.zeros_(self.seg_head.bias)
        if self.sr_head is not None:
            nn.init.zeros_(self.sr_head.weight)
            nn.init.zeros_(self.sr_head.bias)

    def compute_conv_feature_map_size(self, lr_shape: Sequence[int]) -> int:
        """Return the elements of all convolution and head outputs for one input of `lr_shape`."""
        hr_voxels = prod(lr_shape) * prod(self.scale)
        maps = self.width * (self.num_convs + (self.upsample is not None))
        heads = sum(head.out_features for head in (self.seg_head, self.sr_head) if head)
        return hr_voxels * (maps + heads)


def check_same_region(features: torch.Tensor, lr_image: torch.Tensor) -> None:
    """Raise a ValueError where `features` and `lr_image` differ in batch or spatial shape."""
    if features.shape[2:] != lr_image.shape[2:] or len(features) != len(lr_image):
        raise ValueError(
            f"features {tuple(features.shape)} and LR image {tuple(lr_image.shape)} "
            "must agree in batch and spatial shape."
        )


def channels_last_on_cpu(features: torch.Tensor) -> torch.Tensor:
    """Return `features` in the layout that CPU convolutions of few channels are fastest in.

    Nothing in the HR stage needs another layout, so one small copy here serves all of it. The
    trunk is left as it is: instance norm would undo the layout after every convolution.
    """
    if features.device.type != "cpu":
        return features
    layout = torch.channels_last if features.ndim == 4 else torch.channels_last_3d
    return features.contiguous(memory_format=layout)


def pointwise(hidden: torch.Tensor, heads: Sequence[nn.Linear]) -> Sequence[torch.Tensor]:
    """Return the (B, out, Z, Y, X) results of `heads`, each on its own share of the channels.

    One matrix product for all: a 1x1 convolution per head takes several times as long on a CPU,
    and TF32 would make it less than float32 on a GPU.

    Args:
        hidden: (B, width, Z, Y, X); `width` is the sum of the heads' inputs, in their order.
        heads: what to apply.
    """
    weight = torch.block_diag(*(head.weight for head in heads))
    bias = torch.cat([head.bias for head in heads])
    stacked = nn.functional.linear(hidden.movedim(1, -1), weight, bias).movedim(-1, 1)
    return stacked.split([head.out_features for head in heads], dim=1)
