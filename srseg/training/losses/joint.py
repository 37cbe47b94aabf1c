"""The joint loss: named terms from the method file, weighted by their schedules."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from nnunetv2.utilities.label_handling.label_handling import LabelManager
from torch import nn

from srseg.networks.output import JointOutput
from srseg.training.losses.schedule import schedule_from_json
from srseg.training.losses.segmentation import DiceAndCrossEntropy
from srseg.training.losses.super_resolution import masked_l1

Term = Callable[[JointOutput, Mapping[str, Any]], torch.Tensor]


def _dice_ce(label_manager: LabelManager, batch_dice: bool, ddp: bool) -> Term:
    loss = DiceAndCrossEntropy(label_manager, batch_dice=batch_dice, ddp=ddp)
    return lambda output, batch: loss(output.seg, batch["target"], batch["valid"])


def _sr_l1(label_manager: LabelManager, batch_dice: bool, ddp: bool) -> Term:
    return lambda output, batch: masked_l1(output.sr, batch["hr"], batch["valid"])


LOSS_TERMS: dict[str, Callable[[LabelManager, bool, bool], Term]] = {
    "dice_ce": _dice_ce,
    "sr_l1": _sr_l1,
}
SR_TERMS = frozenset({"sr_l1"})


class JointLoss(nn.Module):
    """Weighted sum of named terms.

    Args:
        terms: the method file's `losses`: name -> {"weight": number or schedule}.
        label_manager: nnU-Net's.
        batch_dice: Dice over the batch instead of per sample (from the plans).
        ddp: whether gradients are gathered over processes.

    Raises:
        ValueError: for an unknown term (the known ones are listed) or option.
    """

    def __init__(
        self,
        terms: Mapping[str, Mapping[str, Any]],
        label_manager: LabelManager,
        *,
        batch_dice: bool,
        ddp: bool = False,
    ) -> None:
        super().__init__()
        unknown = sorted(set(terms) - set(LOSS_TERMS))
        if unknown:
            raise ValueError(
                f"unknown loss terms {unknown}; known: {', '.join(sorted(LOSS_TERMS))}."
            )
        for name, options in terms.items():
            if set(options) != {"weight"}:
                raise ValueError(
                    f"loss term '{name}' has the options {sorted(options)}; allowed: weight."
                )
        self.schedules = {
            name: schedule_from_json(options["weight"], name) for name, options in terms.items()
        }
        self.terms = {name: LOSS_TERMS[name](label_manager, batch_dice, ddp) for name in terms}

    @property
    def needs_sr(self) -> bool:
        """Whether some term looks at the SR image."""
        return not SR_TERMS.isdisjoint(self.terms)

    def forward(
        self, output: JointOutput, batch: Mapping[str, Any], progress: float
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Return the total and each unweighted term.

        Args:
            output: the network's; `seg` is a list, finest first.
            batch: `hr`, `target` (list), `valid` on the output's device.
            progress: share of training done, in [0, 1]; the schedules read it.
        """
        values = {name: term(output, batch) for name, term in self.terms.items()}
        weighted = [self.schedules[name](progress) * value for name, value in values.items()]
        return torch.stack(weighted).sum(), {name: v.detach() for name, v in values.items()}
