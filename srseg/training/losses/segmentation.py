"""Dice + cross-entropy (or BCE for regions) with deep supervision, nnU-Net's own, masked."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.distributed as dist
from nnunetv2.training.loss.compound_losses import DC_and_BCE_loss, DC_and_CE_loss
from nnunetv2.training.loss.dice import MemoryEfficientSoftDiceLoss
from nnunetv2.utilities.label_handling.label_handling import LabelManager
from torch import nn
from torch.nn.functional import interpolate

from srseg.training.losses.counted import per_sample, zero_of

MASKED_LABEL = -1  # what voxels that no loss may see carry in a label map


def deep_supervision_weights(num_outputs: int, *, keep_all: bool) -> list[float]:
    """Return nnU-Net's weights: halved at each coarser output, the coarsest unused, sum 1.

    Args:
        num_outputs: how many segmentation outputs the network gives.
        keep_all: give the coarsest a tiny weight instead of none (DDP wants every output used).
    """
    weights = [0.5**i for i in range(num_outputs)]
    if num_outputs > 1:
        weights[-1] = 1e-6 if keep_all else 0.0
    total = sum(weights)
    return [weight / total for weight in weights]


def masked_target(
    target: torch.Tensor, valid: torch.Tensor, label_manager: LabelManager
) -> torch.Tensor:
    """Return `target` with voxels outside `valid` marked so that the losses skip them.

    Args:
        target: (B, 1, ...) label map, or (B, R, ...) regions with stock's ignore channel last
            where the dataset has an ignore label.
        valid: (B, 1, ...) bool on the HR grid; `target` may be coarser (deep supervision).
        label_manager: says whether labels or regions are trained.

    Returns:
        Labels: invalid voxels become `MASKED_LABEL`, and so do voxels of the ignore label.
        Regions: a last bool channel is true where the loss must not look.
    """
    if valid.shape[2:] != target.shape[2:]:
        valid = interpolate(valid.float(), size=target.shape[2:], mode="nearest-exact") > 0.5
    if not label_manager.has_regions:
        labels = target.long()
        if label_manager.has_ignore_label:
            valid = valid & (labels != label_manager.ignore_label)
        return torch.where(valid, labels, MASKED_LABEL)
    regions = target.bool()
    if label_manager.has_ignore_label:
        regions, ignored = regions[:, :-1], regions[:, -1:]
        valid = valid & ~ignored
    return torch.cat((regions, ~valid), dim=1)


class DiceAndCrossEntropy(nn.Module):
    """nnU-Net's compound loss over all segmentation outputs (Isensee et al., 2021).

    Soft Dice without background plus cross-entropy for labels, soft Dice plus binary
    cross-entropy for regions; voxels outside `valid` and of the ignore label do not count.
    """

    def __init__(self, label_manager: LabelManager, *, batch_dice: bool, ddp: bool) -> None:
        super().__init__()
        self.label_manager = label_manager
        self.keep_all = ddp
        self.gathers = ddp and batch_dice
        dice = {"batch_dice": batch_dice, "smooth": 1e-5, "ddp": ddp}
        if label_manager.has_regions:
            self.compound = DC_and_BCE_loss(
                {},
                {**dice, "do_bg": True},
                # with a mask nnU-Net sums over regions where without one it takes their mean
                weight_ce=1 / len(label_manager.foreground_regions),
                use_ignore_label=True,
                dice_class=MemoryEfficientSoftDiceLoss,
            )
        else:
            self.compound = DC_and_CE_loss(
                {**dice, "do_bg": False},
                {},
                ignore_label=MASKED_LABEL,
                dice_class=MemoryEfficientSoftDiceLoss,
            )

    def forward(
        self,
        logits: Sequence[torch.Tensor],
        targets: Sequence[torch.Tensor],
        valid: torch.Tensor,
        labelled: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return the weighted sum over outputs (a scalar, fp32).

        Args:
            logits: (B, K, ...) per output, finest first.
            targets: as many, of the same spatial shapes.
            valid: (B, 1, ...) bool on the HR grid.
            labelled: (B,) bool, the samples that count, None for all; 0 if none does.

        Raises:
            ValueError: if outputs and targets differ in number or in spatial shape.
        """
        check_shapes(logits, targets)
        if labelled is not None:
            valid = valid & per_sample(labelled, valid)
        masked = [masked_target(target, valid, self.label_manager) for target in targets]
        return self.of_masked(logits, masked, labelled)

    def of_masked(
        self,
        logits: Sequence[torch.Tensor],
        targets: Sequence[torch.Tensor],
        labelled: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return the same for targets of `masked_target`, with unlabelled samples masked."""
        if labelled is not None:
            known = labelled.any()
            if self.gathers:
                dist.all_reduce(known, dist.ReduceOp.MAX)
            if not known:
                return zero_of(*logits)
            if not self.gathers:  # there every process brings as many samples
                # masked samples would still count in the mean over Dice scores
                logits, targets = ([one[labelled] for one in many] for many in (logits, targets))
        return supervised(
            lambda out, target: self.compound(out.float(), target),
            logits,
            targets,
            keep_all=self.keep_all,
        )


def check_shapes(logits: Sequence[torch.Tensor], targets: Sequence[torch.Tensor]) -> None:
    """Raise ValueError if outputs and targets differ in number or in spatial shape."""
    shapes = [tuple(out.shape[2:]) for out in logits]
    wanted = [tuple(target.shape[2:]) for target in targets]
    if shapes != wanted:
        raise ValueError(f"segmentation outputs have shapes {shapes}, targets {wanted}.")


def supervised(
    loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    logits: Sequence[torch.Tensor],
    targets: Sequence[torch.Tensor],
    *,
    keep_all: bool,
) -> torch.Tensor:
    """Return the sum of `loss` over outputs and targets, weighted as in nnU-Net."""
    weights = deep_supervision_weights(len(logits), keep_all=keep_all)
    terms = [
        weight * loss(out, target)
        for weight, out, target in zip(weights, logits, targets, strict=True)
        if weight > 0
    ]
    return torch.stack(terms).sum()
