"""What a method of adaptation is: networks, and phases that each train their own ones.

A step runs the phases in order. Each phase owns networks and has an optimiser for just these; the
others are frozen while it runs, so no loss can move, and no `zero_grad` can wipe, what another
phase owns.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn

from srseg.networks.discriminator import Discriminator
from srseg.networks.translation.blocks import Shape
from srseg.networks.translation.build import build_translator
from srseg.training.adaptation.patches import Batch
from srseg.training.losses.adversarial import discriminator_loss, generator_loss

KIND = "least_squares"
_DISCRIMINATOR_WIDTHS = (16, 32, 32)
Terms = dict[str, torch.Tensor]
Made = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Phase:
    """One loss with its optimiser.

    Attributes:
        name: of the phase; `procedure` files and messages use it.
        networks: names of those it trains.
        losses: maps a batch and what earlier phases of the step have made to unweighted terms.
    """

    name: str
    networks: tuple[str, ...]
    losses: Callable[[Batch, Made], Terms]


class AdaptationMethod(ABC):
    """Networks, phases and weights of one method.

    Args:
        shape: of the translation networks.
        weights: of loss terms, replacing the defaults.

    Attributes:
        translator: what is applied in the end; its parts are shared with `networks`.
        networks: all there are, by name; each is owned by the phases that name it.
        weights: of every term.

    Raises:
        ValueError: for a weight of an unknown term.
    """

    name: ClassVar[str]
    default_weights: ClassVar[Mapping[str, float]]

    def __init__(self, shape: Shape, weights: Mapping[str, float] | None = None) -> None:
        weights = dict(weights or {})
        unknown = sorted(set(weights) - set(self.default_weights))
        if unknown:
            raise ValueError(
                f"method '{self.name}' has no loss term {', '.join(unknown)}; it has: "
                f"{', '.join(self.default_weights)}."
            )
        self.shape = shape
        self.weights = {**self.default_weights, **weights}
        self.translator = build_translator(
            self.name, {name: getattr(shape, name) for name in shape.__dataclass_fields__}
        )
        self.networks = nn.ModuleDict(self.build_networks())

    @abstractmethod
    def build_networks(self) -> dict[str, nn.Module]:
        """Return every network by name, the parts of `translator` among them."""

    @abstractmethod
    def phases(self) -> tuple[Phase, ...]:
        """Return the phases of a step, in order."""

    def state(self) -> dict[str, Any]:
        """Return what a step changes beside networks and optimisers; tensors and plain values."""
        return {}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take over what `state` returned: here nothing."""
        assert not state

    def discriminator(self) -> Discriminator:
        """Return a new discriminator of patches."""
        return Discriminator(
            self.shape.num_channels, self.shape.num_axes, widths=_DISCRIMINATOR_WIDTHS
        )

    def fooling(self, discriminator: str, fake: torch.Tensor) -> torch.Tensor:
        """Return the generator's loss against the named discriminator."""
        return generator_loss(KIND, self.networks[discriminator](fake))

    def judging(self, discriminator: str, real: torch.Tensor, fake: torch.Tensor) -> torch.Tensor:
        """Return the named discriminator's own loss; `fake` has no graph."""
        network = self.networks[discriminator]
        return discriminator_loss(KIND, network(real), network(fake.detach()))

    @contextmanager
    def training_only(self, phase: Phase) -> Iterator[None]:
        """Freeze every network that the phase does not own; gradients still pass through."""
        frozen = [
            parameter
            for name, network in self.networks.items()
            if name not in phase.networks
            for parameter in network.parameters()
        ]
        for parameter in frozen:
            parameter.requires_grad_(False)
        try:
            yield
        finally:
            for parameter in frozen:
                parameter.requires_grad_(True)

    def parameters_of(self, phase: Phase) -> list[nn.Parameter]:
        """Return what the phase's optimiser owns."""
        return [p for name in phase.networks for p in self.networks[name].parameters()]


class CodingMethod(AdaptationMethod):
    """Coders of both domains, all trained by one loss, and a discriminator a domain: MUNIT, UNIT.

    `build_networks` names the discriminators `source_discriminator` and `target_discriminator`.
    """

    def phases(self) -> tuple[Phase, ...]:
        """Return the step of all coders, then that of both discriminators."""
        discriminators = ("source_discriminator", "target_discriminator")
        coders = tuple(name for name in self.networks if name not in discriminators)
        return (
            Phase("coders", coders, self._coders),
            Phase("discriminators", discriminators, self._discriminators),
        )

    @abstractmethod
    def _coders(self, batch: Batch, made: Made) -> Terms:
        """Return the coders' terms; `made` gets the fakes "source" and "target"."""

    def _discriminators(self, batch: Batch, made: Made) -> Terms:
        return {
            "judge_source": self.judging("source_discriminator", batch.source, made["source"]),
            "judge_target": self.judging("target_discriminator", batch.target, made["target"]),
        }


def l1(image: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Return the mean absolute difference, float32."""
    return (image.float() - other.float()).abs().mean()
