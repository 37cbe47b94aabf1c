"""Cross-entropy voxel by voxel: of the hardest voxels only, or with weights per class."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from nnunetv2.utilities.label_handling.label_handling import LabelManager
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from srseg.training.losses.counted import labelled_valid, zero_of
from srseg.training.losses.segmentation import (
    MASKED_LABEL,
    check_shapes,
    masked_target,
    supervised,
)
from srseg.training.losses.terms import REQUIRED, LossContext, Option, Term, is_number, is_share

HARD_EXAMPLE_OPTIONS = {
    "threshold": Option(0.7, "a probability above 0 and below 1", is_share),
    "min_fraction": Option(
        1 / 16, "a share from 0 to 1", lambda value: is_number(value) and 0 <= value <= 1
    ),
}


def _are_weights(value: Any) -> bool:
    listed = isinstance(value, (list, tuple)) and len(value) > 0
    return listed and all(is_number(v) and v >= 0 for v in value) and max(value) > 0


WEIGHTED_OPTIONS = {
    "class_weights": Option(REQUIRED, "a list of numbers >= 0, not all of them 0", _are_weights)
}


def hard_mean(losses: torch.Tensor, *, threshold: float, min_fraction: float) -> torch.Tensor:
    """Return the mean of the losses above -ln(`threshold`), at least of the highest ones.

    Online hard example mining (Shrivastava et al., CVPR 2016) as JOANet uses it.

    Args:
        losses: (N,) cross-entropies, those of masked voxels left out.
        threshold: what the true class's probability must stay below for a voxel to be hard.
        min_fraction: share of all voxels that count in any case, rounded up, and at least one.
    """
    least = max(1, math.ceil(min_fraction * len(losses)))
    hard = losses > -math.log(threshold)
    if int(hard.sum()) >= least:
        return losses[hard].mean()
    return losses.topk(least).values.mean()


def ohem_loss(
    logits: torch.Tensor,
    target: torch.Tensor,
    label_manager: LabelManager,
    *,
    threshold: float,
    min_fraction: float,
) -> torch.Tensor:
    """Return the mean cross-entropy of the hard voxels of a batch, fp32; 0 if none counts.

    Args:
        logits: (B, K, ...).
        target: of `masked_target`; masked voxels are never among the hard ones.
        label_manager: with regions, a voxel's loss is the mean of its binary cross-entropies.
        threshold: see `hard_mean`.
        min_fraction: see `hard_mean`.
    """
    logits = logits.float()
    if label_manager.has_regions:
        truth = target[:, :-1].float()
        losses = binary_cross_entropy_with_logits(logits, truth, reduction="none").mean(1)
        counted = ~target[:, -1]
    else:
        losses = cross_entropy(logits, target[:, 0], ignore_index=MASKED_LABEL, reduction="none")
        counted = target[:, 0] != MASKED_LABEL
    losses = losses[counted]
    if len(losses) == 0:
        return zero_of(logits)
    return hard_mean(losses, threshold=threshold, min_fraction=min_fraction)


def weighted_loss(
    logits: torch.Tensor,
    target: torch.Tensor,
    label_manager: LabelManager,
    *,
    class_weights: Sequence[float],
) -> torch.Tensor:
    """Return the cross-entropy, every voxel weighted by its true class, fp32; 0 if none counts.

    The sum is divided by that of the weights, as torch does. Regions: the mean of the binary
    cross-entropies, weighted by region.

    Args:
        logits: (B, K, ...).
        target: of `masked_target`.
        label_manager: says whether labels or regions are trained.
        class_weights: one per channel of the logits.
    """
    logits = logits.float()
    weights = torch.tensor(class_weights, dtype=torch.float32, device=logits.device)
    if label_manager.has_regions:
        truth, counted = target[:, :-1].float(), ~target[:, -1:]
        losses = binary_cross_entropy_with_logits(logits, truth, reduction="none") * counted
        sums = losses.movedim(1, -1).flatten(0, -2).sum(0)
        return (sums * weights).sum() / (counted.sum().clamp_min(1) * weights.sum())
    labels = target[:, 0]
    losses = cross_entropy(
        logits, labels, weight=weights, ignore_index=MASKED_LABEL, reduction="none"
    )
    given = weights[labels.clamp_min(0)] * (labels != MASKED_LABEL)
    total = given.sum()
    return losses.sum() / torch.where(total > 0, total, 1)


def ohem_term(context: LossContext, threshold: float, min_fraction: float) -> Term:
    """Return the term `ohem_ce`, over all outputs with nnU-Net's deep supervision weights."""
    return _supervised_term(context, ohem_loss, threshold=threshold, min_fraction=min_fraction)


def weighted_ce_term(context: LossContext, class_weights: Sequence[float]) -> Term:
    """Return the term `weighted_ce`, over all outputs with nnU-Net's deep supervision weights.

    Raises:
        ValueError: if there is not one weight per class or region.
    """
    heads = context.label_manager.num_segmentation_heads
    if len(class_weights) != heads:
        raise ValueError(
            f"weighted_ce has {len(class_weights)} class_weights, the dataset has {heads} "
            f"{'regions' if context.label_manager.has_regions else 'classes with background'}."
        )
    return _supervised_term(context, weighted_loss, class_weights=class_weights)


def _supervised_term(context: LossContext, loss: Any, **options: Any) -> Term:
    manager = context.label_manager

    def term(output: Any, batch: Any) -> torch.Tensor:
        check_shapes(output.seg, batch["target"])
        valid = labelled_valid(batch)
        return supervised(
            lambda out, target: loss(
                out, masked_target(target, valid, manager), manager, **options
            ),
            output.seg,
            batch["target"],
            keep_all=context.ddp,
        )

    return term
