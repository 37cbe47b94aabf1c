"""CycleGAN (Zhu et al., ICCV 2017): both directions, cycle and identity, replayed fakes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import nn

from srseg.networks.shallow_convolutions import make_shallow_safe
from srseg.networks.translation.translators import ResidualGenerator
from srseg.training.adaptation.method import AdaptationMethod, Made, Phase, Terms, l1
from srseg.training.adaptation.patches import Batch
from srseg.training.adaptation.replay import ReplayBuffer


class CycleGAN(AdaptationMethod):
    """Generators target to source and source to target; each reads the other's images too."""

    name: ClassVar[str] = "cyclegan"
    default_weights: ClassVar[Mapping[str, float]] = {
        # published: 1. The discriminators' slope is bounded by 1 here (spectral normalisation), so
        # that weight never outbids cycle and identity and both generators stay the identity
        "fool_source": 10.0,
        "fool_target": 10.0,
        "cycle_source": 10.0,
        "cycle_target": 10.0,
        "identity_source": 5.0,
        "identity_target": 5.0,
        "judge_source": 1.0,
        "judge_target": 1.0,
    }

    def build_networks(self) -> dict[str, nn.Module]:
        """Return both generators and both discriminators."""
        self._replayed = {"source": ReplayBuffer(), "target": ReplayBuffer()}
        return {
            "to_source": self.translator,
            "to_target": make_shallow_safe(ResidualGenerator(self.shape)),
            "source_discriminator": self.discriminator(),
            "target_discriminator": self.discriminator(),
        }

    def phases(self) -> tuple[Phase, ...]:
        """Return the step of both generators, then that of both discriminators."""
        return (
            Phase("generators", ("to_source", "to_target"), self._generators),
            Phase(
                "discriminators",
                ("source_discriminator", "target_discriminator"),
                self._discriminators,
            ),
        )

    def state(self) -> dict[str, Any]:
        """Return the replayed fakes."""
        return {name: buffer.state() for name, buffer in self._replayed.items()}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take over the replayed fakes."""
        for name, buffer in self._replayed.items():
            buffer.load_state(state[name])

    def _generators(self, batch: Batch, made: Made) -> Terms:
        to_source, to_target = self.networks["to_source"], self.networks["to_target"]
        fake_source, fake_target = to_source(batch.target), to_target(batch.source)
        made.update(source=fake_source.detach(), target=fake_target.detach())
        return {
            "fool_source": self.fooling("source_discriminator", fake_source),
            "fool_target": self.fooling("target_discriminator", fake_target),
            "cycle_source": l1(to_source(fake_target), batch.source),
            "cycle_target": l1(to_target(fake_source), batch.target),
            "identity_source": l1(to_source(batch.source), batch.source),
            "identity_target": l1(to_target(batch.target), batch.target),
        }

    def _discriminators(self, batch: Batch, made: Made) -> Terms:
        fakes: dict[str, torch.Tensor] = {
            name: buffer.exchanged(made[name], batch.generator)
            for name, buffer in self._replayed.items()
        }
        return {
            "judge_source": self.judging("source_discriminator", batch.source, fakes["source"]),
            "judge_target": self.judging("target_discriminator", batch.target, fakes["target"]),
        }
