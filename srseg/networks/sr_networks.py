"""Networks that only super-resolve: (B, C, z, y, x) to (B, C, Z, Y, X), from a small registry.

None normalises, each adds to the interpolated input, and each has `start_as_interpolation`, which
sets the weights that must not be random, and `compute_conv_feature_map_size`.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

import torch
from dynamic_network_architectures.building_blocks.helper import get_matching_convtransp
from torch import nn

from srseg.networks.arguments import check_at_least_one
from srseg.networks.interpolation import Interpolation
from srseg.networks.precision import full_precision
from srseg.networks.unfolded import UnfoldedSR

_RESIDUAL_SCALING = 0.1  # EDSR's: without it the sum of many blocks starts far too large


class CubicSR(nn.Module):
    """Face-aligned cubic interpolation, without parameters: the baseline.

    Args:
        scale: refinement per axis.
    """

    def __init__(self, *, scale: Sequence[int]) -> None:
        super().__init__()
        self.interpolation = Interpolation(scale)

    def forward(self, lr_image: torch.Tensor) -> torch.Tensor:
        """Return the interpolated image, float32 (B, C, Z, Y, X), of (B, C, z, y, x)."""
        return self.interpolation(lr_image)

    def start_as_interpolation(self) -> None:
        """Do nothing: there are no weights."""

    def compute_conv_feature_map_size(self, lr_shape: Sequence[int]) -> int:
        """Return 0: there are no convolutions."""
        return 0


class EDSR(nn.Module):
    """Residual blocks on the LR grid, one sub-pixel step and one convolution on the HR grid.

    After Lim et al., "Enhanced deep residual networks for single image super-resolution" (CVPRW
    2017), with defaults that a CPU can train (they have 32 blocks of 256 channels). Unlike
    theirs, the result is added to the interpolated input.

    Args:
        num_channels: C.
        conv_op: `nn.Conv2d` or `nn.Conv3d`.
        scale: refinement per axis; all ones leaves the sub-pixel step out.
        kernel_size: odd size per axis.
        width: channels everywhere.
        num_blocks: residual blocks.

    Raises:
        ValueError: if a number is below 1.
    """

    def __init__(
        self,
        num_channels: int,
        *,
        conv_op: type[nn.Module],
        scale: Sequence[int],
        kernel_size: Sequence[int],
        width: int = 32,
        num_blocks: int = 8,
    ) -> None:
        super().__init__()
        check_at_least_one(width=width, num_blocks=num_blocks)
        self.scale, self.width = tuple(scale), width
        kernel = tuple(kernel_size)
        padding = tuple(size // 2 for size in kernel)

        def conv(channels: int, out_channels: int) -> nn.Module:
            return conv_op(channels, out_channels, kernel, padding=padding)

        self.entry = conv(num_channels, width)
        self.blocks = nn.ModuleList(
            nn.Sequential(conv(width, width), nn.ReLU(inplace=True), conv(width, width))
            for _ in range(num_blocks)
        )
        self.exit = conv(width, width)
        self.upsample = None
        if prod(self.scale) > 1:
            transposed = get_matching_convtransp(conv_op)
            self.upsample = transposed(width, width, self.scale, self.scale)
        self.head = conv(width, num_channels)
        self.interpolation = Interpolation(scale)

    def forward(self, lr_image: torch.Tensor) -> torch.Tensor:
        """Return the SR image, float32 (B, C, Z, Y, X), of `lr_image` (B, C, z, y, x)."""
        first = hidden = self.entry(lr_image)
        for block in self.blocks:
            hidden = hidden + block(hidden)
        hidden = first + self.exit(hidden)
        if self.upsample is not None:
            hidden = self.upsample(hidden)
        with full_precision(lr_image.device.type):
            return self.interpolation(lr_image) + self.head(hidden.float())

    @torch.no_grad()
    def start_as_interpolation(self) -> None:
        """Start with a zero residual, small blocks and equal sub-pixel weights (ICNR)."""
        for block in self.blocks:
            block[-1].weight.mul_(_RESIDUAL_SCALING)
        if self.upsample is not None:  # nearest neighbour, without a checkerboard
            weight = self.upsample.weight  # (in, out, *scale)
            kernel = torch.randn(weight.shape[:2], device=weight.device) / self.width**0.5
            weight.copy_(kernel.reshape(*kernel.shape, *(1 for _ in self.scale)).expand_as(weight))
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def compute_conv_feature_map_size(self, lr_shape: Sequence[int]) -> int:
        """Return the elements of all convolution outputs for one image of `lr_shape`."""
        voxels = prod(lr_shape)
        hr_maps = self.head.out_channels + (0 if self.upsample is None else self.width)
        return voxels * (self.width * (2 + 2 * len(self.blocks)) + hr_maps * prod(self.scale))


SR_NETWORKS: dict[str, type[nn.Module]] = {
    "cubic": CubicSR,
    "edsr": EDSR,
    "unfolded": UnfoldedSR,
}


def build_sr_network(sr_network: Mapping[str, Any], **setting: Any) -> nn.Module:
    """Return the network that {"name": ..., options} describes.

    Args:
        sr_network: a key of `SR_NETWORKS` under "name", and options of that class.
        **setting: what the surroundings fix: `num_channels`, `conv_op`, `scale`, `kernel_size`,
            `strides`, `degradation`, `hr_spacing`. A network gets what its constructor names.

    Raises:
        ValueError: if the name or an option is unknown, or an option is out of range.
    """
    options = dict(sr_network)
    name = options.pop("name", None)
    if name not in SR_NETWORKS:
        raise ValueError(f"unknown SR network {name!r}; known: {', '.join(SR_NETWORKS)}.")
    parameters = inspect.signature(SR_NETWORKS[name]).parameters
    known = sorted(set(parameters) - set(setting))
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise ValueError(
            f"unknown option {', '.join(unknown)} of the SR network '{name}'; "
            f"known: {', '.join(known) or 'none'}."
        )
    return SR_NETWORKS[name](**{k: v for k, v in setting.items() if k in parameters}, **options)
