"""Parts of a network trained in turn, as JOANet does (docs/methods.md)."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any, ClassVar

import torch

from srseg.training.losses.joint import JointLoss
from srseg.training.phases import phases_from_json
from srseg.training.trainer import SRSegTrainer


class SRSegTrainerAlternating(SRSegTrainer):
    """Trains the parts of a serial network in phases, round after round.

    In a phase one part learns from the phase's losses; the others are frozen, stay in eval mode
    and pass gradients on, so that the SR network learns what helps the segmenter. The segmenter's
    phase sees the SR image as it is in memory. The phase follows from the progress alone, so a
    training resumes inside a round.
    """

    default_method: ClassVar[str] = "JOANet"
    procedure_block: ClassVar[str] = "phases"

    def _build_loss(self) -> JointLoss:
        """Return the method's losses, which validation reports, and make those of the phases."""
        if not self.method.phases:
            raise ValueError(
                f"method '{self.method.name}' has no phases, which {type(self).__name__} needs."
            )
        if self.is_ddp:
            raise ValueError("parts are frozen in turn, which DDP cannot do; use one GPU.")
        self.phases = phases_from_json(self.method.phases, f"method '{self.method.name}'")
        self.parts = tuple(dict.fromkeys(phase.train for phase in self.phases.order))
        missing = [part for part in self.parts if not hasattr(self.unwrapped_network(), part)]
        if missing:
            raise ValueError(
                f"method '{self.method.name}' trains the parts {missing}, which its network "
                f"{type(self.unwrapped_network()).__name__} does not have."
            )
        context = self._loss_context()
        self.phase_losses = [JointLoss(phase.losses, context) for phase in self.phases.order]
        return super()._build_loss()

    def _training_loss(self, batch: dict[str, Any]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Return loss and terms of the phase; only its part gets gradients."""
        number, index = self.phases.at(self._progress())
        with ExitStack() as stack:
            for part in self.parts:
                if part != self.phases.order[index].train:
                    stack.enter_context(self.unwrapped_network().frozen(part))
            output = self._forward(batch)
            return self.phase_losses[index](output, batch, self._progress(), number)
