"""The loop that trains an adapter: phases of a step, schedule, checkpoints, log."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from srseg import __version__
from srseg.inference.adapter import AdapterDescription
from srseg.inference.model_folder import FINAL_CHECKPOINT
from srseg.networks.translation.blocks import Shape
from srseg.training.adaptation.images import Domain
from srseg.training.adaptation.log import AdaptationLog
from srseg.training.adaptation.method import Phase
from srseg.training.adaptation.methods import TRAINED_METHODS
from srseg.training.adaptation.patches import Batch, draw_batch
from srseg.training.checkpoint import save_atomically
from srseg.training.clock import TrainingClock
from srseg.training.optimizer import build_optimizer, descend
from srseg.training.randomness import generator_of, kept_global_state
from srseg.training.stopping import StopRequest

logger = logging.getLogger(__name__)

LATEST_CHECKPOINT = "checkpoint_latest.pth"
_BETAS = (0.5, 0.999)  # of Adam, as every one of the published methods
_CONSTANT_SHARE = 0.5  # of training; then the learning rate falls linearly to 0, as CycleGAN's
_STEPS_PER_RECORD = 25
_RECORDS_PER_CHECKPOINT = 8
_WEIGHTS_STREAM = 3  # beside those of patches.py


@dataclass(frozen=True)
class Schedule:
    """How long an adapter trains.

    Attributes:
        num_steps: of all phases, where there is no budget.
        budget_minutes: training time, or None.
        seed: of weights and batches.
        batch_size: patches of each domain a step.
        learning_rate: of every optimiser, at the beginning.
    """

    num_steps: int
    budget_minutes: float | None
    seed: int
    batch_size: int
    learning_rate: float = 2e-4


class AdapterTrainer:
    """Trains the method that a description names.

    Args:
        description: of the adapter; its network and patch size are used as they stand.
        domains: source and target images.
        schedule: how long and with which seed.
        weights: of loss terms, replacing the method's.
        device: where it computes.
        folder: for checkpoints and log.

    Attributes:
        method: networks and phases.
        step: how many have been done.
    """

    def __init__(
        self,
        description: AdapterDescription,
        domains: tuple[Domain, Domain],
        schedule: Schedule,
        *,
        weights: Mapping[str, float] | None = None,
        device: str | torch.device = "cpu",
        folder: Path,
    ) -> None:
        self.description, self._domains, self._schedule = description, domains, schedule
        self._device, self._folder = torch.device(device), folder
        with kept_global_state():
            seed = generator_of((schedule.seed, 0, _WEIGHTS_STREAM)).initial_seed()
            torch.default_generator.manual_seed(seed)
            self.method = TRAINED_METHODS[description.method](Shape(**description.network), weights)
        self.method.networks.to(self._device).train()
        adam = {"name": "adam", "learning_rate": schedule.learning_rate, "betas": _BETAS}
        self._optimizers = {
            phase.name: build_optimizer(self.method.parameters_of(phase), adam)
            for phase in self.method.phases()
        }
        budget = schedule.budget_minutes
        self._clock = TrainingClock(
            num_epochs=schedule.num_steps,
            iterations_per_epoch=1,
            budget_seconds=None if budget is None else 60 * budget,
        )
        self._log = AdaptationLog(folder)
        self.step = 0

    def run(self) -> bool:
        """Train to the end; return whether it was reached, or a signal stopped it before.

        Raises:
            RuntimeError: if a term or a gradient is not finite; the last checkpoint stays.
        """
        self._log.begin(self.step)
        stop = StopRequest()
        self._clock.start()
        with stop.on_signals():
            while not self._clock.finished(self.step) and not stop:
                self._log.add(self.train_step())
                self.step += 1
                if self.step % _STEPS_PER_RECORD == 0:
                    self._log.write(self.step, self._clock.elapsed(), self.learning_rate())
                if self.step % (_STEPS_PER_RECORD * _RECORDS_PER_CHECKPOINT) == 0:
                    self.save(self._folder / LATEST_CHECKPOINT)
                    self._log.plot()
        if not self._clock.finished(self.step):
            self.save(self._folder / LATEST_CHECKPOINT)
            return False
        self._log.write(self.step, self._clock.elapsed(), self.learning_rate())
        self._log.plot()
        self.save(self._folder / FINAL_CHECKPOINT)
        (self._folder / LATEST_CHECKPOINT).unlink(missing_ok=True)
        return True

    def learning_rate(self) -> float:
        """Return the learning rate of the coming step."""
        progress = self._clock.progress(self.step, 0)
        share = (1 - progress) / (1 - _CONSTANT_SHARE)
        return self._schedule.learning_rate * min(1.0, max(0.0, share))

    def train_step(self) -> dict[str, float]:
        """Do one step of every phase; return the unweighted terms.

        Raises:
            RuntimeError: if a term or a gradient is not finite.
        """
        batch = draw_batch(
            *self._domains,
            patch_size=self.description.patch_size,
            batch_size=self._schedule.batch_size,
            key=(self._schedule.seed, self.step),
            device=self._device,
        )
        learning_rate, made, values = self.learning_rate(), {}, {}
        for phase in self.method.phases():
            optimizer = self._optimizers[phase.name]
            for group in optimizer.param_groups:
                group["lr"] = learning_rate
            values |= self._descend(phase, batch, made, optimizer)
        return values

    def _descend(
        self,
        phase: Phase,
        batch: Batch,
        made: dict[str, torch.Tensor],
        optimizer: torch.optim.Optimizer,
    ) -> dict[str, float]:
        optimizer.zero_grad(set_to_none=True)
        with self.method.training_only(phase):
            with torch.autocast(
                self._device.type, torch.bfloat16, enabled=self._device.type == "cuda"
            ):
                terms = phase.losses(batch, made)
            values = {name: float(term.detach()) for name, term in terms.items()}
            for name, value in values.items():
                self._check(name, value)
            loss = torch.stack([self.method.weights[n] * term for n, term in terms.items()]).sum()
            descend(
                loss,
                self.method.parameters_of(phase),
                optimizer,
                check=lambda norm: self._check(f"gradient of phase {phase.name}", float(norm)),
            )
        return values

    def _check(self, what: str, value: float) -> None:
        if not math.isfinite(value):
            raise RuntimeError(
                f"{what} of method {self.description.method} is not finite ({value}) in step "
                f"{self.step}; the last checkpoint stands."
            )

    def save(self, file: Path) -> None:
        """Write all that continues the training exactly, and all that an application needs."""
        save_atomically(
            {
                "network_weights": self.method.translator.state_dict(),
                "adapter": self.description.to_json(),
                "networks": self.method.networks.state_dict(),
                "optimizers": {name: o.state_dict() for name, o in self._optimizers.items()},
                "method_state": self.method.state(),
                "log": self._log.state(),
                "step": self.step,
                "elapsed_seconds": self._clock.elapsed(),
                "version": __version__,
            },
            file,
        )

    def restore(self, checkpoint: Mapping[str, Any]) -> None:
        """Continue where a checkpoint of the same description was written."""
        self.method.networks.load_state_dict(checkpoint["networks"])
        self.method.translator.load_state_dict(checkpoint["network_weights"])
        for name, state in checkpoint["optimizers"].items():
            self._optimizers[name].load_state_dict(state)
        self.method.load_state(checkpoint["method_state"])
        self._log.load_state(checkpoint["log"])
        self.step = checkpoint["step"]
        self._clock.spent_seconds = checkpoint["elapsed_seconds"]
