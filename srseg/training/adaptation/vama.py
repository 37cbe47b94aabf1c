"""V-AMA, corrected: variational adaptation with one latent code a domain, added up.

After the code of ImperialCollegeLondon/Gemini-GAN. Kept: two passes with an encoder, a latent head
and a decoder each, residual translation, L1 + MSE + KL + least-squares adversarial terms, the added
means, deviations and skips ("mixture") in the target pass. Changed, with reasons, in
docs/adaptation.md: heads of 1x1 convolutions, each owned by its own pass; the KL as a mean; the
source pass reads a changed source image instead of a pixel sum with an unrelated one; the weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import nn

from srseg.training.adaptation.appearance import changed_appearance
from srseg.training.adaptation.method import AdaptationMethod, Made, Phase, Terms
from srseg.training.adaptation.patches import Batch
from srseg.training.losses.kl import kl_divergence


class Vama(AdaptationMethod):
    """The source pass restores source images, the target pass translates target images."""

    name: ClassVar[str] = "vama"
    default_weights: ClassVar[Mapping[str, float]] = {
        "restore_source": 1.0,
        "kl_source": 0.05,
        "fool_restored": 0.05,
        "content_target": 0.5,
        "kl_target": 0.05,
        "fool_source": 1.0,
        "judge_restored": 1.0,
        "judge_source": 1.0,
    }

    def build_networks(self) -> dict[str, nn.Module]:
        """Return both passes and their discriminators."""
        return {
            "source": self.translator.source,
            "target": self.translator.target,
            "restored_discriminator": self.discriminator(),
            "source_discriminator": self.discriminator(),
        }

    def phases(self) -> tuple[Phase, ...]:
        """Return the source pass, the target pass and the discriminators' step."""
        return (
            Phase("source_pass", ("source",), self._source_pass),
            Phase("target_pass", ("target",), self._target_pass),
            Phase(
                "discriminators",
                ("restored_discriminator", "source_discriminator"),
                self._discriminators,
            ),
        )

    def _source_pass(self, batch: Batch, made: Made) -> Terms:
        coder = self.translator.source
        seen = changed_appearance(batch.source, batch.generator)
        mean, deviation, skips = coder.encode(seen)
        code = mean + deviation * batch.normal(mean)
        restored = seen + coder.decoder(code, skips)
        made["restored"] = restored.detach()
        return {
            "restore_source": _l1_and_squared(restored, batch.source),
            "kl_source": kl_divergence(mean, deviation),
            "fool_restored": self.fooling("restored_discriminator", restored),
        }

    def _target_pass(self, batch: Batch, made: Made) -> Terms:
        adapted, mean, deviation = self.translator.translate(batch.target, batch.normal)
        made["adapted"] = adapted.detach()
        return {
            "content_target": _l1_and_squared(adapted, batch.target),
            "kl_target": kl_divergence(mean, deviation),
            "fool_source": self.fooling("source_discriminator", adapted),
        }

    def _discriminators(self, batch: Batch, made: Made) -> Terms:
        return {
            "judge_restored": self.judging(
                "restored_discriminator", batch.source, made["restored"]
            ),
            "judge_source": self.judging("source_discriminator", batch.source, made["adapted"]),
        }


def _l1_and_squared(image: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    difference = image.float() - other.float()
    return difference.abs().mean() + difference.square().mean()
