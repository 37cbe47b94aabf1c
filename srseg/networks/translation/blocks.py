"""The layers that all translation networks are made of, in two or three axes.

Convolutions begin with He's weights. None is followed by batch normalisation, so a batch may be one
sample; without instance normalisation a network sees the same wherever a tile begins.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import nn
from torch.nn import functional as F

NORMALISATIONS = ("none", "instance")
SLOPE = 0.2
_CONVOLUTIONS = {2: nn.Conv2d, 3: nn.Conv3d}
_TRANSPOSED = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
_INSTANCE_NORMS = {2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}


@dataclass(frozen=True)
class Shape:
    """What a translation network is built from, as `adapter.json` stores it.

    Attributes:
        num_channels: of the image.
        num_axes: 2 or 3.
        widths: channels per resolution, the finest first.
        strides: per step down the stride of each axis; one step less than widths.
        norm: "none" or "instance".
        num_blocks: residual blocks at the coarsest resolution, in encoder and in decoder.

    Raises:
        ValueError: if these do not fit together.
    """

    num_channels: int
    num_axes: int
    widths: tuple[int, ...] = (8, 16, 32)
    strides: tuple[tuple[int, ...], ...] = field(default=((2, 2, 2), (2, 2, 2)))
    norm: str = "none"
    num_blocks: int = 1

    def __post_init__(self) -> None:
        for name in ("widths", "strides"):  # JSON hands back lists
            value = getattr(self, name)
            plain = tuple(tuple(v) if isinstance(v, list | tuple) else int(v) for v in value)
            object.__setattr__(self, name, plain)
        if self.num_axes not in _CONVOLUTIONS or self.num_channels < 1:
            raise ValueError(
                f"a translation network has 2 or 3 axes and at least 1 channel, got "
                f"{self.num_axes} and {self.num_channels}."
            )
        if self.norm not in NORMALISATIONS:
            raise ValueError(
                f"unknown normalisation '{self.norm}' of a translation network; "
                f"known: {', '.join(NORMALISATIONS)}."
            )
        if len(self.strides) != len(self.widths) - 1 or any(
            len(step) != self.num_axes for step in self.strides
        ):
            raise ValueError(
                f"widths {self.widths} need {len(self.widths) - 1} strides of {self.num_axes} "
                f"axes, got {self.strides}."
            )

    @property
    def multiple(self) -> tuple[int, ...]:
        """By what each axis of an image must be divisible."""
        product = [1] * self.num_axes
        for step in self.strides:
            product = [p * s for p, s in zip(product, step, strict=True)]
        return tuple(product)


def convolution(
    shape: Shape,
    num_in: int,
    num_out: int,
    kernel: int = 3,
    stride: Sequence[int] | int = 1,
    *,
    bias: bool = True,
) -> nn.Module:
    """Return a convolution that keeps the size, apart from its stride."""
    stride = stride if isinstance(stride, int) else tuple(stride)
    layer = _CONVOLUTIONS[shape.num_axes](
        num_in, num_out, kernel, stride, padding=kernel // 2, bias=bias
    )
    nn.init.kaiming_normal_(layer.weight, a=SLOPE)
    if bias:
        nn.init.zeros_(layer.bias)
    return layer


def up_sampling(shape: Shape, num_in: int, num_out: int, stride: Sequence[int]) -> nn.Module:
    """Return a transposed convolution whose kernel is its stride: no checkerboard of overlaps."""
    layer = _TRANSPOSED[shape.num_axes](num_in, num_out, tuple(stride), tuple(stride))
    nn.init.kaiming_normal_(layer.weight, a=SLOPE, mode="fan_out")
    nn.init.zeros_(layer.bias)
    return layer


def convolution_block(
    shape: Shape, num_in: int, num_out: int, stride: Sequence[int] | int = 1
) -> nn.Sequential:
    """Return convolution, normalisation if the shape has one, and leaky ReLU."""
    normalised = shape.norm == "instance"
    # a bias before a normalisation would be subtracted again and never learn
    layers = [convolution(shape, num_in, num_out, stride=stride, bias=not normalised)]
    if normalised:
        layers.append(_INSTANCE_NORMS[shape.num_axes](num_out, affine=True))
    return nn.Sequential(*layers, nn.LeakyReLU(SLOPE))


class ResidualBlock(nn.Module):
    """x + conv(block(x)), with the shape's normalisation."""

    def __init__(self, shape: Shape, width: int) -> None:
        super().__init__()
        normalised = shape.norm == "instance"
        self.first = convolution_block(shape, width, width)
        last = [convolution(shape, width, width, bias=not normalised)]
        if normalised:
            last.append(_INSTANCE_NORMS[shape.num_axes](width, affine=True))
        self.last = nn.Sequential(*last)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return features of the same shape."""
        return features + self.last(self.first(features))


class StyledBlock(nn.Module):
    """A residual block whose means and deviations a style sets (AdaIN, Huang & Belongie 2017)."""

    def __init__(self, shape: Shape, width: int) -> None:
        super().__init__()
        self.first = convolution(shape, width, width, bias=False)
        self.last = convolution(shape, width, width, bias=False)

    def forward(self, features: torch.Tensor, style: torch.Tensor) -> torch.Tensor:
        """Return features (B, W, ...) for a style (B, 4 * W): two gains and offsets a channel."""
        gain, offset, last_gain, last_offset = (
            part.reshape(*part.shape, *[1] * (features.ndim - 2)) for part in style.chunk(4, dim=1)
        )
        styled = F.leaky_relu(_standardised(self.first(features)) * (1 + gain) + offset, SLOPE)
        return features + _standardised(self.last(styled)) * (1 + last_gain) + last_offset


def _standardised(features: torch.Tensor) -> torch.Tensor:
    """Return each channel of each sample with mean 0 and deviation 1, also of a single voxel."""
    axes = tuple(range(2, features.ndim))
    centred = features - features.mean(dim=axes, keepdim=True)
    return centred * (centred.square().mean(dim=axes, keepdim=True) + 1e-5).rsqrt()
