"""BicycleGAN (Zhu et al., NeurIPS 2017) without pairs: a code of the source's appearance steers.

The published method learns from pairs. What becomes of its two cycles here:
* cVAE-GAN (an image's own code leads back to the image): a source image with its own code must
  come back as it is ("pixel"); a target image with the code of a source image must look real.
* cLR-GAN (a drawn code is found again in what it made): unchanged, in a phase that trains the
  generator alone, as published.
Nothing holds a target image's content without its pair, so that "content" (L1) is new.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import nn

from srseg.networks.shallow_convolutions import make_shallow_safe
from srseg.networks.translation.coders import VectorHead
from srseg.networks.translation.translators import CODE_WIDTH
from srseg.training.adaptation.method import AdaptationMethod, Made, Phase, Terms, l1
from srseg.training.adaptation.patches import Batch
from srseg.training.losses.kl import kl_divergence


class BicycleGAN(AdaptationMethod):
    """One generator, one encoder of appearance, a discriminator for encoded and for drawn codes."""

    name: ClassVar[str] = "bicyclegan"
    default_weights: ClassVar[Mapping[str, float]] = {
        "pixel": 10.0,
        "kl": 0.01,
        "fool_encoded": 1.0,
        "fool_drawn": 1.0,
        "content": 1.0,
        "latent": 0.5,
        "judge_encoded": 1.0,
        "judge_drawn": 1.0,
    }

    def build_networks(self) -> dict[str, nn.Module]:
        """Return the generator, the encoder and both discriminators."""
        return {
            "generator": self.translator,
            "encoder": make_shallow_safe(VectorHead(self.shape, CODE_WIDTH, num_vectors=2)),
            "encoded_discriminator": self.discriminator(),
            "drawn_discriminator": self.discriminator(),
        }

    def phases(self) -> tuple[Phase, ...]:
        """Return the step of generator and encoder, the generator's alone, the discriminators'."""
        return (
            Phase("generator_and_encoder", ("generator", "encoder"), self._both),
            Phase("generator_alone", ("generator",), self._alone),
            Phase(
                "discriminators",
                ("encoded_discriminator", "drawn_discriminator"),
                self._discriminators,
            ),
        )

    def _both(self, batch: Batch, made: Made) -> Terms:
        generator = self.networks["generator"]
        mean, deviation = self._encode(batch.source)
        code = mean + deviation * batch.normal(mean)
        drawn = batch.normal_code(CODE_WIDTH)
        encoded_fake = generator(batch.target, code)
        drawn_fake = generator(batch.target, drawn)
        made.update(drawn=drawn, encoded=encoded_fake.detach(), drawn_fake=drawn_fake.detach())
        content = l1(encoded_fake, batch.target) + l1(drawn_fake, batch.target)
        return {
            "pixel": l1(generator(batch.source, code), batch.source),
            "kl": kl_divergence(mean, deviation),
            "fool_encoded": self.fooling("encoded_discriminator", encoded_fake),
            "fool_drawn": self.fooling("drawn_discriminator", drawn_fake),
            "content": 0.5 * content,
        }

    def _alone(self, batch: Batch, made: Made) -> Terms:
        fake = self.networks["generator"](batch.target, made["drawn"])
        return {"latent": l1(self._encode(fake)[0], made["drawn"])}

    def _encode(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        mean, log_variance = self.networks["encoder"](image)
        return mean, (0.5 * log_variance.clamp(-10, 10)).exp()

    def _discriminators(self, batch: Batch, made: Made) -> Terms:
        return {
            "judge_encoded": self.judging("encoded_discriminator", batch.source, made["encoded"]),
            "judge_drawn": self.judging("drawn_discriminator", batch.source, made["drawn_fake"]),
        }
