"""MUNIT (Huang et al., ECCV 2018): content codes that both domains share, style codes of each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import nn

from srseg.networks.shallow_convolutions import make_shallow_safe
from srseg.networks.translation.coders import STYLE_WIDTH, Encoder, StyledDecoder, VectorHead
from srseg.training.adaptation.method import CodingMethod, Made, Terms, l1
from srseg.training.adaptation.patches import Batch


class Munit(CodingMethod):
    """Encoders of content and style and a styled decoder for each domain."""

    name: ClassVar[str] = "munit"
    default_weights: ClassVar[Mapping[str, float]] = {
        "recover_source": 10.0,
        "recover_target": 10.0,
        "content_source": 1.0,
        "content_target": 1.0,
        "style_source": 1.0,
        "style_target": 1.0,
        "fool_source": 1.0,
        "fool_target": 1.0,
        "judge_source": 1.0,
        "judge_target": 1.0,
    }

    def build_networks(self) -> dict[str, nn.Module]:
        """Return the encoders, decoders and discriminators of both domains."""
        return {
            "target_content": self.translator.encoder,
            "source_content": make_shallow_safe(Encoder(self.shape)),
            "target_style": make_shallow_safe(VectorHead(self.shape, STYLE_WIDTH)),
            "source_style": make_shallow_safe(VectorHead(self.shape, STYLE_WIDTH)),
            "source_decoder": self.translator.decoder,
            "target_decoder": make_shallow_safe(StyledDecoder(self.shape)),
            "source_discriminator": self.discriminator(),
            "target_discriminator": self.discriminator(),
        }

    def _content(self, domain: str, image: torch.Tensor) -> torch.Tensor:
        return self.networks[f"{domain}_content"](image)[-1]

    def _style(self, domain: str, image: torch.Tensor) -> torch.Tensor:
        return self.networks[f"{domain}_style"](image)[0]

    def _coders(self, batch: Batch, made: Made) -> Terms:
        images = {"source": batch.source, "target": batch.target}
        content = {name: self._content(name, image) for name, image in images.items()}
        style = {name: self._style(name, image) for name, image in images.items()}
        self.translator.remember(style["source"].detach())
        drawn = {name: batch.normal_code(STYLE_WIDTH) for name in images}
        terms: Terms = {}
        for domain, other in (("source", "target"), ("target", "source")):
            decoder = self.networks[f"{domain}_decoder"]
            fake = decoder(content[other], drawn[domain])
            made[domain] = fake.detach()
            recovered = decoder(content[domain], style[domain])
            terms |= {
                f"recover_{domain}": l1(recovered, images[domain]),
                f"content_{other}": l1(self._content(domain, fake), content[other].detach()),
                f"style_{domain}": l1(self._style(domain, fake), drawn[domain]),
                f"fool_{domain}": self.fooling(f"{domain}_discriminator", fake),
            }
        return terms
