"""Deep unfolding: a U-Net prior and the scanner's own physics in turns.

The super-resolution network of JOANet (kldys/JOANet), written anew from its description. There the
measurement is bicubic, here it is the degradation of the plans and its exact adjoint, along any
axis.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

import torch
from dynamic_network_architectures.building_blocks.helper import get_matching_convtransp
from torch import nn

from srseg.networks.arguments import check_at_least_one
from srseg.networks.data_consistency import DataConsistency
from srseg.networks.interpolation import Interpolation
from srseg.networks.precision import full_precision

_STEP, _PRIOR_WEIGHT = 0.1, 0.9  # JOANet's initial d_k and e_k


class UnfoldedSR(nn.Module):
    """Iterates x - d_k (A^T (A x - y) / ||A||^2 + e_k (x - v)), v = x + f(x), from cubic x_0.

    y is the LR image, A the degradation, f one U-Net shared by all iterations, and d_k, e_k are
    learnt. Freshly built f is zero: the SR image is then the interpolated input after a few steps
    towards consistency with the input, not the interpolated input itself.

    Args:
        num_channels: C; A treats each alone, f reads all.
        conv_op: `nn.Conv2d` or `nn.Conv3d`.
        scale: refinement per axis.
        kernel_size: odd size per axis of the prior's convolutions.
        strides: per stage and axis of the segmenter on the HR grid. The prior goes down by the
            same ones, so that every patch that fits the segmenter fits it.
        degradation, hr_spacing: of the plans, see `DataConsistency`.
        iterations: JOANet has 6.
        width: channels of the prior on every level; JOANet has 64.
        depth: levels below the HR grid, at most as many as the segmenter has; JOANet has 4.
        num_convs: convolutions per level and direction; JOANet has 3.

    Raises:
        ValueError: if a number is below 1 (`depth` may be 0), or the degradation does not fit.
    """

    def __init__(
        self,
        num_channels: int,
        *,
        conv_op: type[nn.Module],
        scale: Sequence[int],
        kernel_size: Sequence[int],
        strides: Sequence[Sequence[int]],
        degradation: Mapping[str, Any] | None = None,
        hr_spacing: Sequence[float] | None = None,
        iterations: int = 3,
        width: int = 16,
        depth: int = 3,
        num_convs: int = 2,
    ) -> None:
        super().__init__()
        check_at_least_one(iterations=iterations, width=width, num_convs=num_convs)
        if depth < 0:
            raise ValueError(
                f"depth of the SR network 'unfolded' is {depth}; at least 0 is needed."
            )
        self.scale = tuple(scale)
        self.interpolation = Interpolation(scale)
        self.data_consistency = DataConsistency(degradation, scale, hr_spacing)
        self.prior = UNetPrior(
            num_channels,
            conv_op=conv_op,
            kernel_size=kernel_size,
            strides=list(strides)[1 : 1 + depth],
            width=width,
            num_convs=num_convs,
        )
        self.steps = nn.Parameter(torch.full((iterations,), _STEP))
        self.prior_weights = nn.Parameter(torch.full((iterations,), _PRIOR_WEIGHT))

    def iterates(self, lr_image: torch.Tensor) -> list[torch.Tensor]:
        """Return x_0 (the interpolated input) to x_n, each float32 (B, C, Z, Y, X)."""
        lr_image = lr_image.float()  # the measurement: sums with it stay float32
        images = [self.interpolation(lr_image)]
        for step, weight in zip(self.steps, self.prior_weights, strict=True):
            image = images[-1]
            to_prior = -self.prior(image)  # x - v
            descent = self.data_consistency.gradient(image, lr_image) + weight * to_prior
            images.append(image - step * descent)
        return images

    def forward(self, lr_image: torch.Tensor) -> torch.Tensor:
        """Return the SR image, float32 (B, C, Z, Y, X), of `lr_image` (B, C, z, y, x)."""
        return self.iterates(lr_image)[-1]

    def start_as_interpolation(self) -> None:
        """Start with a prior that changes nothing; the data-consistency steps stay."""
        nn.init.zeros_(self.prior.head.weight)
        nn.init.zeros_(self.prior.head.bias)

    def compute_conv_feature_map_size(self, lr_shape: Sequence[int]) -> int:
        """Return the elements of all convolution outputs for one image of `lr_shape`."""
        hr_shape = [n * factor for n, factor in zip(lr_shape, self.scale, strict=True)]
        return len(self.steps) * self.prior.compute_conv_feature_map_size(hr_shape)


class UNetPrior(nn.Module):
    """U-Net of one width without normalisation: image in, correction of the image out.

    Args:
        num_channels: of the image.
        conv_op: `nn.Conv2d` or `nn.Conv3d`.
        kernel_size: odd size per axis.
        strides: per level below the finest and axis; every axis of the image must be a multiple
            of their product.
        width: channels of every level.
        num_convs: convolutions with ReLU per level and direction.
    """

    def __init__(
        self,
        num_channels: int,
        *,
        conv_op: type[nn.Module],
        kernel_size: Sequence[int],
        strides: Sequence[Sequence[int]],
        width: int,
        num_convs: int,
    ) -> None:
        super().__init__()
        self.strides, self.width, self.num_convs = [tuple(s) for s in strides], width, num_convs
        kernel = tuple(kernel_size)
        padding = tuple(size // 2 for size in kernel)
        transposed = get_matching_convtransp(conv_op)

        def stack(channels: int, count: int) -> list[nn.Module]:
            convs = [
                conv_op(channels if i == 0 else width, width, kernel, padding=padding)
                for i in range(count)
            ]
            return [module for conv in convs for module in (conv, nn.ReLU(inplace=True))]

        self.encoder_stages, self.downs = nn.ModuleList(), nn.ModuleList()
        self.ups, self.decoder_stages = nn.ModuleList(), nn.ModuleList()  # finest first too
        for level, stride in enumerate(self.strides):
            channels = num_channels if level == 0 else width
            self.encoder_stages.append(nn.Sequential(*stack(channels, num_convs)))
            # wide enough that neither a strided nor a transposed kernel skips a voxel
            wide = tuple(max(size, 2 * step - 1) for size, step in zip(kernel, stride, strict=True))
            around = tuple(size // 2 for size in wide)
            down = conv_op(width, width, wide, stride, around)
            self.downs.append(nn.Sequential(down, nn.ReLU(inplace=True)))
            remainder = tuple(step - 1 for step in stride)  # forces the output onto the skip's grid
            self.ups.append(transposed(width, width, wide, stride, around, remainder))
            merge = [conv_op(2 * width, width, 1), nn.ReLU(inplace=True)]
            last = conv_op(width, width, kernel, padding=padding)
            self.decoder_stages.append(nn.Sequential(*merge, *stack(width, num_convs), last))
        self.bottom = nn.Sequential(*stack(width if self.strides else num_channels, 1))
        self.head = conv_op(width, num_channels, kernel, padding=padding)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return the correction, float32, of the shape (B, C, *axes) of `image`."""
        hidden, skips = image, []
        for stage, down in zip(self.encoder_stages, self.downs, strict=True):
            skips.append(stage(hidden))
            hidden = down(skips[-1])
        hidden = self.bottom(hidden)
        for skip, up, stage in zip(
            reversed(skips), reversed(self.ups), reversed(self.decoder_stages), strict=True
        ):
            hidden = stage(torch.cat((up(hidden), skip), 1))
        with full_precision(image.device.type):
            return self.head(hidden.float())

    def compute_conv_feature_map_size(self, shape: Sequence[int]) -> int:
        """Return the elements of all convolution outputs for one image of `shape`."""
        total = self.head.out_channels * prod(shape)
        for stride in self.strides:
            # there num_convs; back the transposed one, the 1x1 one, num_convs and one more
            total += self.width * prod(shape) * (2 * self.num_convs + 3)
            shape = [n // step for n, step in zip(shape, stride, strict=True)]
            total += self.width * prod(shape)  # the strided one
        return total + self.width * prod(shape)
