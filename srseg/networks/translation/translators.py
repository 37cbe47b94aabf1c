"""What translates when a model is applied: target-domain images into the source domain's look.

Training builds the parts, `build_translator` puts those together that an application needs. All are
deterministic and keep the size.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import nn

from srseg.networks.translation.blocks import ResidualBlock, Shape
from srseg.networks.translation.coders import (
    STYLE_WIDTH,
    Decoder,
    Encoder,
    LatentHead,
    StyledDecoder,
)

Noise = Callable[[torch.Tensor], torch.Tensor]
CODE_WIDTH = 8  # BicycleGAN's
_NEW_STYLE_SHARE = 0.02  # of the moving average, when it is old
_CORRECTION_GAIN = 0.1  # a translation begins near the identity


class ResidualGenerator(nn.Module):
    """image + decoder(encoder(image)): a U-Net that corrects its input (CycleGAN, BicycleGAN).

    Args:
        shape: of the network.
        code_width: length of a code that steers it; 0 for none.
    """

    def __init__(self, shape: Shape, *, code_width: int = 0) -> None:
        super().__init__()
        self.code_width = code_width
        self.encoder = Encoder(shape, extra_channels=code_width)
        self.decoder = Decoder(shape, skips=True, output_gain=_CORRECTION_GAIN)

    def forward(self, image: torch.Tensor, code: torch.Tensor | None = None) -> torch.Tensor:
        """Return the translation of `image` (B, C, ...) for a code (B, code_width).

        Without a code it is the mean of the prior, 0.
        """
        seen = image
        if self.code_width:
            if code is None:
                code = image.new_zeros(len(image), self.code_width)
            spread = code.reshape(*code.shape, *[1] * (image.ndim - 2))
            seen = torch.cat((image, spread.expand(-1, -1, *image.shape[2:])), dim=1)
        features = self.encoder(seen)
        return image + self.decoder(features[-1], features[:-1])


class LatentCoder(nn.Module):
    """One pass of V-AMA: encoder, latent head and the decoder of a correction."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.encoder = Encoder(shape)
        self.head = LatentHead(shape)
        self.decoder = Decoder(shape, skips=True, output_gain=_CORRECTION_GAIN)

    def encode(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, list[torch.Tensor]]:
        """Return the code's mean, its deviation and the finer features."""
        features = self.encoder(image)
        mean, log_variance = self.head(features[-1])
        return mean, (0.5 * log_variance).exp(), features[:-1]


class VamaTranslator(nn.Module):
    """V-AMA: the codes of both passes are added, the target pass decodes the correction."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.source = LatentCoder(shape)
        self.target = LatentCoder(shape)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return the translation of `image` (B, C, ...), at the mean of the codes."""
        return self.translate(image)[0]

    def translate(
        self, image: torch.Tensor, noise: Noise | None = None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return the translation and the mean and deviation of the added code.

        Args:
            image: (B, C, ...).
            noise: returns standard normal numbers like a tensor; None takes the mean.
        """
        with torch.no_grad():  # the source pass alone trains its parts
            other_mean, other_deviation, other_skips = self.source.encode(image)
        mean, deviation, skips = self.target.encode(image)
        mean, deviation = mean + other_mean, deviation + other_deviation
        code = mean if noise is None else mean + deviation * noise(mean)
        skips = [own + other for own, other in zip(skips, other_skips, strict=True)]
        return image + self.target.decoder(code, skips), mean, deviation


class Shared(nn.Module):
    """The blocks before and after UNIT's latent code, the same for both domains."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        width = shape.widths[-1]
        self.closed = ResidualBlock(shape, width)
        self.opened = ResidualBlock(shape, width)


class SharedLatentTranslator(nn.Module):
    """UNIT: the target's encoder, blocks that both domains share, the source's decoder."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        # the shared blocks close the encoders and open the decoders
        open_shape = replace(shape, num_blocks=0)
        self.encoder = Encoder(open_shape)
        self.shared = Shared(shape)
        self.decoder = Decoder(open_shape, skips=False)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return the translation of `image` (B, C, ...), at the mean of the code."""
        return self.decoder(self.shared.opened(self.shared.closed(self.encoder(image)[-1])))


class StyleTranslator(nn.Module):
    """MUNIT: the target's content in the mean style of the source images.

    The style is a buffer, a moving average that training fills; MUNIT draws styles instead.
    """

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.encoder = Encoder(shape)
        self.decoder = StyledDecoder(shape)
        self.register_buffer("style", torch.zeros(1, STYLE_WIDTH))
        self.register_buffer("num_styles", torch.zeros((), dtype=torch.long))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return the translation of `image` (B, C, ...)."""
        return self.decoder(self.encoder(image)[-1], self.style.expand(len(image), -1))

    @torch.no_grad()
    def remember(self, style: torch.Tensor) -> None:
        """Move the style towards the mean of `style` (B, STYLE_WIDTH), of source images."""
        self.num_styles += 1  # at first a plain mean, so that a short training forgets the zeros
        share = max(_NEW_STYLE_SHARE, 1 / int(self.num_styles))
        self.style.lerp_(style.mean(dim=0, keepdim=True).float(), share)
