"""Super-resolution and segmentation as the two levels of a bi-level training (docs/methods.md)."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from itertools import chain
from typing import Any, ClassVar

import torch

from srseg.preprocessing.dataset import SRSegDataset
from srseg.training.bilevel import BilevelOptimizer
from srseg.training.levels import LEVELS, halves, levels_from_json
from srseg.training.losses.joint import JointLoss
from srseg.training.method import Method
from srseg.training.optimizer import build_optimizer
from srseg.training.profile import Profile
from srseg.training.trainer import SRSegTrainer

logger = logging.getLogger(__name__)


class SRSegTrainerBilevel(SRSegTrainer):
    """Trains the segmenter below and the SR network above, each on cases of its own.

    Lower level: the segmenter (theta) learns on the SR image of one part of the fold's training
    cases. Upper level: the SR network (omega) learns from its image and from the segmentation of
    the other part, its gradient corrected for the segmenter's answer (`BilevelOptimizer`). Which
    case is in which part follows from seed and fold alone. Always float32.
    """

    default_method: ClassVar[str] = "BiLevel"
    procedure_block: ClassVar[str] = "bilevel"

    def configure(self, method: Method, profile: Profile, **options: Any) -> None:
        """As `SRSegTrainer.configure`, in float32 whatever the machine would take.

        Raises:
            ValueError: if the method has no block "bilevel", or asks for cases without labels.
        """
        if not method.bilevel:
            raise ValueError(
                f"method '{method.name}' has no block 'bilevel', which a bi-level trainer needs."
            )
        if method.unlabelled:
            raise ValueError(
                f"method '{method.name}' asks for cases without labels, of which the levels of a "
                "bi-level training make no use; leave out 'unlabelled'."
            )
        if profile.precision != "fp32":
            logger.info("a bi-level training is always fp32, not %s", profile.precision)
            profile = replace(profile, precision="fp32")
        super().configure(method, profile, **options)
        self.levels = levels_from_json(method.bilevel, f"method '{method.name}'")

    def _do_i_compile(self) -> bool:
        """Return False: the levels' gradients are taken of parts of the network."""
        return False

    def configure_optimizers(self) -> tuple[torch.optim.Optimizer, None]:
        """Return the segmenter's optimiser and make the SR network's beside it.

        Raises:
            ValueError: if the two levels of this network would not touch each other.
        """
        self._check_network()
        network = self.unwrapped_network()
        lower, self.upper_optimizer = (
            build_optimizer(
                (p for p in part.parameters() if p.requires_grad), self.method.optimizer
            )
            for part in (network.segmenter, network.sr_network)
        )
        self.bilevel = BilevelOptimizer(
            network.segmenter.parameters(),
            network.sr_network.parameters(),
            lower,
            self.upper_optimizer,
            epsilon=self.levels.epsilon,
        )
        return lower, None

    def _check_network(self) -> None:
        network = self.unwrapped_network()
        name = type(network).__name__
        who = f"method '{self.method.name}' has a bi-level training"
        if self.is_ddp:
            raise ValueError(f"{who}, whose levels DDP cannot keep apart; use one GPU.")
        if not (hasattr(network, "sr_network") and hasattr(network, "segmenter")):
            raise ValueError(
                f"{who}, but its network {name} has no segmenter that reads the SR image of an SR "
                "network: the lower loss would not depend on the upper level and the correction "
                "would always be 0; use SerialSRSeg."
            )
        if network.detach_sr:
            raise ValueError(f"{who}: detach_sr must be false, or the correction is always 0.")
        if not any(True for _ in network.sr_network.parameters()):
            raise ValueError(f"{who}, but its SR network has no weights; use edsr or unfolded.")

    def _build_loss(self) -> JointLoss:
        """Return the method's losses, which validation reports, and make those of the levels."""
        context = self._loss_context()
        self.level_losses = {
            level: JointLoss(terms, context) for level, terms in self.levels.losses.items()
        }
        return super()._build_loss()

    def _training_parts(self, dataset: SRSegDataset) -> Mapping[str, SRSegDataset]:
        parts = halves(
            dataset.identifiers, fraction=self.levels.fraction, seed=self.seed, fold=self.fold
        )
        return {
            level: SRSegDataset(self.preprocessed_dataset_folder, cases)
            for level, cases in parts.items()
        }

    def _set_learning_rate(self) -> float:
        rate = super()._set_learning_rate()
        for group in self.upper_optimizer.param_groups:
            group["lr"] = rate
        return rate

    def train_step(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Do one step of each level; return the upper loss and the terms of both.

        Terms are named after their level, "upper/sr_l1"; "ratio" and "correction_norm" are those
        of `BilevelStep`.

        Args:
            batch: one batch under the name of each level.

        Raises:
            RuntimeError: if a loss or a gradient is not finite (the terms, the step and the cases
                are named).
        """
        cases = list(chain(*(batch[level]["keys"] for level in LEVELS)))
        batches = {level: self._to_device(batch[level]) for level in LEVELS}
        self._set_learning_rate()
        terms: dict[str, torch.Tensor] = {}

        def loss_of(level: str) -> torch.Tensor:
            output = self._forward(batches[level])
            loss, own = self.level_losses[level](output, batches[level], self._progress())
            for name, value in own.items():
                terms.setdefault(f"{level}/{name}", value)  # the lower ones of before its step
            return loss

        step = self.bilevel.step(
            lambda: loss_of("lower"),
            lambda: loss_of("upper"),
            check=lambda value, what: self._check_finite(value, terms, cases, what=what),
        )
        values = {name: float(value) for name, value in terms.items()}
        own = {"ratio": step.ratio, "correction_norm": step.correction_norm}
        return {"loss": step.upper_loss, "terms": values | own}

    def procedure_state(self) -> dict[str, Any]:
        """Return the state of the SR network's optimiser."""
        return {"upper_optimizer": self.upper_optimizer.state_dict()}

    def load_procedure_state(self, state: Mapping[str, Any]) -> None:
        """Take it back."""
        self.upper_optimizer.load_state_dict(state["upper_optimizer"])
