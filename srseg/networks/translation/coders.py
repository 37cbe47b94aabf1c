"""Encoders, decoders and latent heads of translation networks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from srseg.networks.translation.blocks import (
    SLOPE,
    ResidualBlock,
    Shape,
    StyledBlock,
    convolution,
    convolution_block,
    up_sampling,
)

STYLE_WIDTH = 8  # MUNIT's
_LOG_VARIANCE_LIMIT = 10.0  # exp of more than this is no deviation but an accident


class Encoder(nn.Module):
    """Image to features, one tensor a resolution, the finest first.

    Args:
        shape: of the network.
        extra_channels: that come with the image.
    """

    def __init__(self, shape: Shape, *, extra_channels: int = 0) -> None:
        super().__init__()
        widths = shape.widths
        num_in = shape.num_channels + extra_channels
        self.stages = nn.ModuleList([convolution_block(shape, num_in, widths[0])])
        for index, stride in enumerate(shape.strides):
            self.stages.append(
                convolution_block(shape, widths[index], widths[index + 1], stride=stride)
            )
        self.blocks = nn.Sequential(
            *(ResidualBlock(shape, widths[-1]) for _ in range(shape.num_blocks))
        )

    def forward(self, image: torch.Tensor) -> list[torch.Tensor]:
        """Return the features of `image` (B, C, ...); each axis divides by `shape.multiple`."""
        features = []
        for stage in self.stages:
            image = stage(image)
            features.append(image)
        features[-1] = self.blocks(features[-1])
        return features


class Decoder(nn.Module):
    """Latent code to image, through the encoder's finer features where these are given.

    Args:
        shape: of the network.
        skips: whether the finer features come along.
        output_gain: of the last layer's first weights; small for a decoder that corrects an image.
    """

    def __init__(self, shape: Shape, *, skips: bool, output_gain: float = 1.0) -> None:
        super().__init__()
        widths = shape.widths
        self.blocks = nn.Sequential(
            *(ResidualBlock(shape, widths[-1]) for _ in range(shape.num_blocks))
        )
        self.ups, self.fusions = _way_up(shape, skips=skips)
        self.output = convolution(shape, widths[0], shape.num_channels)
        with torch.no_grad():
            self.output.weight.mul_(output_gain)

    def forward(
        self, latent: torch.Tensor, skips: Sequence[torch.Tensor] | None = None
    ) -> torch.Tensor:
        """Return an image (B, C, ...) of `latent`; `skips` are the finest first."""
        latent = self.blocks(latent)
        for index, (up, fusion) in enumerate(zip(self.ups, self.fusions, strict=True)):
            latent = up(latent)
            if skips is not None:
                latent = torch.cat((latent, skips[-1 - index]), dim=1)
            latent = fusion(latent)
        return self.output(latent)


class LatentHead(nn.Module):
    """Mean and log-variance of a latent code, at each place: two 1x1 convolutions."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        width = shape.widths[-1]
        self.mean = convolution(shape, width, width, kernel=1)
        self.log_variance = convolution(shape, width, width, kernel=1)
        with torch.no_grad():
            self.log_variance.weight.mul_(0.1)  # deviations begin near one

    def forward(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return mean and log-variance, both of the shape of `features`."""
        log_variance = self.log_variance(features)
        limit = _LOG_VARIANCE_LIMIT
        return self.mean(features), limit * torch.tanh(log_variance / limit)


class VectorHead(nn.Module):
    """One vector a sample from an image: strided convolutions, mean over places, linear layers.

    Args:
        shape: of the network; its normalisation is not used, for it would remove the contrast.
        length: of each vector.
        num_vectors: linear layers on the same features.
    """

    def __init__(self, shape: Shape, length: int, *, num_vectors: int = 1) -> None:
        super().__init__()
        layers: list[nn.Module] = [convolution(shape, shape.num_channels, shape.widths[0])]
        for index, stride in enumerate(shape.strides):
            layers.append(nn.LeakyReLU(SLOPE))
            widths = shape.widths[index : index + 2]
            layers.append(convolution(shape, *widths, stride=stride))
        self.layers = nn.Sequential(*layers, nn.LeakyReLU(SLOPE))
        self.vectors = nn.ModuleList(
            nn.Linear(shape.widths[-1], length) for _ in range(num_vectors)
        )

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return vectors (B, length) of `image` (B, C, ...)."""
        features = self.layers(image)
        pooled = features.mean(dim=tuple(range(2, features.ndim)))
        return tuple(vector(pooled) for vector in self.vectors)


class StyledDecoder(nn.Module):
    """MUNIT's decoder: a content code becomes an image in a style.

    Args:
        shape: of the network; there is normalisation in the styled blocks only.
    """

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        width = shape.widths[-1]
        num_blocks = max(1, shape.num_blocks)
        self.blocks = nn.ModuleList(StyledBlock(shape, width) for _ in range(num_blocks))
        self.perceptron = nn.Sequential(
            nn.Linear(STYLE_WIDTH, 64), nn.LeakyReLU(SLOPE), nn.Linear(64, 4 * width * num_blocks)
        )
        self.ups, self.fusions = _way_up(shape, skips=False)
        self.output = convolution(shape, shape.widths[0], shape.num_channels)

    def forward(self, content: torch.Tensor, style: torch.Tensor) -> torch.Tensor:
        """Return an image (B, C, ...) of a content (B, W, ...) and a style (B, STYLE_WIDTH)."""
        parameters = self.perceptron(style).chunk(len(self.blocks), dim=1)
        for block, of_block in zip(self.blocks, parameters, strict=True):
            content = block(content, of_block)
        for up, fusion in zip(self.ups, self.fusions, strict=True):
            content = fusion(up(content))
        return self.output(content)


def _way_up(shape: Shape, *, skips: bool) -> tuple[nn.ModuleList, nn.ModuleList]:
    """Return the up-samplings from the coarsest to the finest resolution, and what follows each."""
    ups, fusions = nn.ModuleList(), nn.ModuleList()
    plain = Shape(shape.num_channels, shape.num_axes, shape.widths, shape.strides)
    for index in reversed(range(len(shape.strides))):
        coarse, fine = shape.widths[index + 1], shape.widths[index]
        ups.append(up_sampling(shape, coarse, fine, shape.strides[index]))
        # near the image a normalisation would remove the contrast that is to be learnt
        fusions.append(convolution_block(plain, 2 * fine if skips else fine, fine))
    return ups, fusions
