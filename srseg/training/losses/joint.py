"""The joint loss: named terms from the method file, weighted by their schedules."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from srseg.networks.output import JointOutput
from srseg.training.losses.consistency import CONSISTENCY_OPTIONS, consistency_term
from srseg.training.losses.counted import zero_of
from srseg.training.losses.edge import EDGE_OPTIONS, edge_term
from srseg.training.losses.hard_examples import (
    HARD_EXAMPLE_OPTIONS,
    WEIGHTED_OPTIONS,
    ohem_term,
    weighted_ce_term,
)
from srseg.training.losses.lr_grid import DICE_CE_OPTIONS, dice_ce_term
from srseg.training.losses.pfseg import SIMILARITY_OPTIONS, similarity_term, target_enhanced_term
from srseg.training.losses.schedule import schedule_from_json
from srseg.training.losses.semantic import SEMANTIC_OPTIONS, SemanticTerm
from srseg.training.losses.ssim import SSIM_OPTIONS, ssim_term
from srseg.training.losses.super_resolution import (
    GUIDANCE_OPTIONS,
    guidance_term,
    l1_term,
    mse_term,
)
from srseg.training.losses.terms import LossContext, TermSpec, checked_options

LOSS_TERMS: dict[str, TermSpec] = {
    "dice_ce": TermSpec(dice_ce_term, DICE_CE_OPTIONS),
    "sr_l1": TermSpec(l1_term, needs_sr=True),
    "sr_mse": TermSpec(mse_term, needs_sr=True),
    "sr_ssim": TermSpec(ssim_term, SSIM_OPTIONS, needs_sr=True),
    "edge": TermSpec(edge_term, EDGE_OPTIONS, needs_sr=True),
    "lr_consistency": TermSpec(consistency_term, CONSISTENCY_OPTIONS, needs_sr=True),
    "guidance": TermSpec(guidance_term, GUIDANCE_OPTIONS, needs_sr=True),
    "target_enhanced": TermSpec(target_enhanced_term, needs_sr=True),
    "similarity": TermSpec(similarity_term, SIMILARITY_OPTIONS, needs_sr=True),
    "ohem_ce": TermSpec(ohem_term, HARD_EXAMPLE_OPTIONS),
    "weighted_ce": TermSpec(weighted_ce_term, WEIGHTED_OPTIONS),
    "semantic": TermSpec(SemanticTerm, SEMANTIC_OPTIONS, needs_sr=True, skipped_at_zero=True),
}
SR_TERMS = frozenset(name for name, spec in LOSS_TERMS.items() if spec.needs_sr)


class JointLoss(nn.Module):
    """Weighted sum of named terms.

    Args:
        terms: the method file's `losses`: name -> {"weight": number or schedule, option: value}.
        context: what the terms must know of the configuration.

    Raises:
        ValueError: for an unknown term or option (the known ones are listed), or a value that is
            not allowed.
    """

    def __init__(self, terms: Mapping[str, Mapping[str, Any]], context: LossContext) -> None:
        super().__init__()
        unknown = sorted(set(terms) - set(LOSS_TERMS))
        if unknown:
            raise ValueError(
                f"unknown loss terms {unknown}; known: {', '.join(sorted(LOSS_TERMS))}."
            )
        options = {
            name: checked_options(name, LOSS_TERMS[name], given) for name, given in terms.items()
        }
        self.schedules = {
            name: schedule_from_json(given["weight"], name) for name, given in terms.items()
        }
        self.terms = {name: LOSS_TERMS[name].factory(context, **options[name]) for name in terms}

    @property
    def needs_sr(self) -> bool:
        """Whether some term looks at the SR image."""
        return not SR_TERMS.isdisjoint(self.terms)

    def set_segmenter(self, segmenter: nn.Module) -> None:
        """Give the term `semantic`, where there is one, its segmenter.

        Args:
            segmenter: from an SR image (B, C, Z, Y, X) to logits on its grid, alone, in a list or
                as a `JointOutput`. Its parameters get no gradient from the loss; it is no part
                of this module.
        """
        for term in self.terms.values():
            if isinstance(term, SemanticTerm):
                term.segmenter = segmenter

    def forward(
        self,
        output: JointOutput,
        batch: Mapping[str, Any],
        progress: float,
        round: int = 0,  # noqa: A002  the alternating trainer's own word
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Return the total and each unweighted term.

        Args:
            output: the network's; `seg` is a list, finest first.
            batch: `data`, `hr`, `target` (list), `valid` on the output's device; `labelled` and
                `has_hr`, (B,) bool, where not every sample has a segmentation or an HR image;
                `guidance_mask` (B, 1, Z, Y, X) bool where the network was given some.
            progress: share of training done, in [0, 1]; the schedules read it.
            round: of an alternating training, counted from 0; the schedules read it.

        Raises:
            ValueError: if a term needs the SR image of a network that gives none.
        """
        if output.sr is None and self.needs_sr:
            raise ValueError(
                f"the loss terms {sorted(SR_TERMS & set(self.terms))} need an SR image, "
                "the network gives none."
            )
        weights = {name: weight(progress, round) for name, weight in self.schedules.items()}
        values = {}
        for name, term in self.terms.items():
            skipped = weights[name] == 0 and LOSS_TERMS[name].skipped_at_zero
            values[name] = zero_of(output.sr) if skipped else term(output, batch)
        weighted = [weights[name] * value for name, value in values.items()]
        return torch.stack(weighted).sum(), {name: v.detach() for name, v in values.items()}
