"""A discriminator with all that trains it, and a guard over what it tells the generator."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import nn

from srseg.networks.freezing import frozen
from srseg.training.adversarial.options import AdversarialOptions
from srseg.training.losses.adversarial import CHANCE, discriminator_loss, generator_loss
from srseg.training.optimizer import build_optimizer, descend, learning_rate_at

_SAME = 1e-6  # scores no further apart are one score


class CollapseGuard:
    """Counts steps at which the discriminator teaches the generator nothing.

    Either it wins: its loss is under a small share of what guessing costs, so that no change of
    the generator's that is in reach fools it. Or it is silent: it gives every place of every
    image one score, which has no gradient.

    Args:
        below: the share.
        steps: in a row, that end the training; 0 for no end.
    """

    def __init__(self, below: float, steps: int) -> None:
        self.below, self.steps = below, steps
        self.won = self.silent = 0

    def observe(self, share: float, spread: float, *, counts: bool) -> None:
        """Take one step into account.

        Args:
            share: the discriminator's loss by what guessing costs.
            spread: largest minus smallest of its scores.
            counts: whether the generator listens to it, else counting begins anew.

        Raises:
            RuntimeError: if it has won, or was silent, for `steps` steps in a row.
        """
        self.won = self.won + 1 if counts and share < self.below else 0
        self.silent = self.silent + 1 if counts and spread < _SAME else 0
        if not self.steps or max(self.won, self.silent) < self.steps:
            return
        how = (
            f"its loss stayed below {self.below:g} of what guessing costs: it tells real from made "
            "everywhere"
            if self.won >= self.steps
            else "it gives everything the same score"
        )
        raise RuntimeError(
            f"the discriminator has collapsed, for {self.steps} steps {how}, and the generator "
            "learns nothing from it; the last checkpoint stands. Train anew with a lower learning "
            "rate of the discriminator, or change collapse in the method's block adversarial."
        )

    def state_dict(self) -> dict[str, int]:
        """Return both counts."""
        return {"won": self.won, "silent": self.silent}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Take back what `state_dict` returned."""
        self.won, self.silent = int(state["won"]), int(state["silent"])


class Adversary:
    """A discriminator, its optimiser, its scaler and its guard.

    Args:
        discriminator: on its device, with its first weights.
        options: the method's.
        autocast: a new context for every forward pass.
        scaler: of float16, or None.
    """

    def __init__(
        self,
        discriminator: nn.Module,
        options: AdversarialOptions,
        *,
        autocast: Callable[[], AbstractContextManager],
        scaler: torch.amp.GradScaler | None = None,
    ) -> None:
        self.discriminator, self.options = discriminator, options
        self.autocast, self.scaler = autocast, scaler
        self.optimizer = build_optimizer(discriminator.parameters(), options.optimizer)
        self.guard = CollapseGuard(options.collapse_below, options.collapse_steps)

    def learn(
        self,
        real: torch.Tensor,
        made: torch.Tensor,
        progress: float,
        check: Callable[[torch.Tensor, Mapping[str, torch.Tensor], str], object],
    ) -> dict[str, torch.Tensor]:
        """Do one step of the discriminator; return its loss and its mean scores.

        Args:
            real: (B, C, Z, Y, X).
            made: the same shape; its gradient is cut.
            progress: of the training, in [0, 1].
            check: is given the loss, then the gradient's norm, with the terms and a word for it;
                raises where it is not finite.

        Raises:
            RuntimeError: from `check`, or if the discriminator has collapsed.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate_at(progress, self.options.optimizer)
        self.optimizer.zero_grad(set_to_none=True)
        with self.autocast():  # together: spectral normalisation iterates once a forward pass
            scores = self.discriminator(torch.cat((real, made.detach())))
        of_real, of_made = scores.float().chunk(2)
        loss = discriminator_loss(self.options.loss, of_real, of_made)
        terms = {"discriminator": loss, "score_real": of_real.mean(), "score_made": of_made.mean()}
        terms = {name: term.detach() for name, term in terms.items()}
        check(loss, terms, "discriminator's loss")
        descend(
            loss,
            self.discriminator.parameters(),
            self.optimizer,
            self.scaler,
            check=lambda norm: check(norm, terms, "discriminator's gradient"),
        )
        self.guard.observe(
            float(loss.detach()) / CHANCE[self.options.loss],
            float(scores.detach().float().max() - scores.detach().float().min()),
            counts=self.options.weight(progress, 0) > 0,
        )
        return terms

    def judge(self, made: torch.Tensor) -> torch.Tensor:
        """Return what the generator descends: its gradient goes to `made`, not to the judge."""
        with frozen(self.discriminator), self.autocast():
            scores = self.discriminator(made)
        return generator_loss(self.options.loss, scores)

    def state_dict(self) -> dict[str, Any]:
        """Return weights, optimiser, scaler and counts."""
        return {
            "discriminator": self.discriminator.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": None if self.scaler is None else self.scaler.state_dict(),
            "guard": self.guard.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` returned."""
        self.discriminator.load_state_dict(state["discriminator"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.scaler is not None and state["scaler"] is not None:
            self.scaler.load_state_dict(state["scaler"])
        self.guard.load_state_dict(state["guard"])
