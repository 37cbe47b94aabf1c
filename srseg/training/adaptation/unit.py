"""UNIT (Liu, Breuel & Kautz, NeurIPS 2017): one latent space for both domains."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar

import torch
from torch import nn

from srseg.networks.shallow_convolutions import make_shallow_safe
from srseg.networks.translation.coders import Decoder, Encoder
from srseg.training.adaptation.method import CodingMethod, Made, Terms, l1
from srseg.training.adaptation.patches import Batch


class Unit(CodingMethod):
    """Two encoders and two decoders around shared blocks; codes of variance 1."""

    name: ClassVar[str] = "unit"
    default_weights: ClassVar[Mapping[str, float]] = {
        "recover_source": 10.0,
        "recover_target": 10.0,
        "kl": 0.01,
        "cycle_source": 10.0,
        "cycle_target": 10.0,
        "cycle_kl": 0.01,
        "fool_source": 1.0,
        "fool_target": 1.0,
        "judge_source": 1.0,
        "judge_target": 1.0,
    }

    def build_networks(self) -> dict[str, nn.Module]:
        """Return encoders, decoders, the shared blocks and both discriminators."""
        outer = replace(self.shape, num_blocks=0)
        return {
            "target_encoder": self.translator.encoder,
            "source_encoder": make_shallow_safe(Encoder(outer)),
            "shared": self.translator.shared,
            "source_decoder": self.translator.decoder,
            "target_decoder": make_shallow_safe(Decoder(outer, skips=False)),
            "source_discriminator": self.discriminator(),
            "target_discriminator": self.discriminator(),
        }

    def _encode(self, domain: str, image: torch.Tensor) -> torch.Tensor:
        features = self.networks[f"{domain}_encoder"](image)[-1]
        return self.networks["shared"].closed(features)

    def _decode(self, domain: str, code: torch.Tensor) -> torch.Tensor:
        return self.networks[f"{domain}_decoder"](self.networks["shared"].opened(code))

    def _coders(self, batch: Batch, made: Made) -> Terms:
        images = {"source": batch.source, "target": batch.target}
        means = {name: self._encode(name, image) for name, image in images.items()}
        codes = {name: mean + batch.normal(mean) for name, mean in means.items()}
        fake_source = self._decode("source", codes["target"])
        fake_target = self._decode("target", codes["source"])
        made.update(source=fake_source.detach(), target=fake_target.detach())
        back_source = self._encode("target", fake_target)
        back_target = self._encode("source", fake_source)
        return {
            "recover_source": l1(self._decode("source", codes["source"]), batch.source),
            "recover_target": l1(self._decode("target", codes["target"]), batch.target),
            "kl": _kl(means["source"]) + _kl(means["target"]),
            "cycle_source": l1(
                self._decode("source", back_source + batch.normal(back_source)), batch.source
            ),
            "cycle_target": l1(
                self._decode("target", back_target + batch.normal(back_target)), batch.target
            ),
            "cycle_kl": _kl(back_source) + _kl(back_target),
            "fool_source": self.fooling("source_discriminator", fake_source),
            "fool_target": self.fooling("target_discriminator", fake_target),
        }


def _kl(mean: torch.Tensor) -> torch.Tensor:
    """Return the mean divergence of codes of variance 1, which is half their squared mean."""
    return 0.5 * mean.float().square().mean()
