"""The term `dice_ce`, and what it compares with on the LR grid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

import torch
from nnunetv2.utilities.label_handling.label_handling import LabelManager
from torch.nn.functional import avg_pool2d, avg_pool3d

from srseg.networks.output import JointOutput
from srseg.training.losses.counted import labelled_valid, zero_of
from srseg.training.losses.segmentation import MASKED_LABEL, DiceAndCrossEntropy, masked_target
from srseg.training.losses.terms import LossContext, Term, one_of

DICE_CE_OPTIONS = {"grid": one_of("hr", ("hr", "lr"))}


def lr_masked_target(
    target: torch.Tensor, scale: Sequence[int], label_manager: LabelManager
) -> torch.Tensor:
    """Return the target of the LR grid: what most of each block of HR voxels is.

    Args:
        target: of `masked_target`, on the HR grid.
        scale: HR voxels per LR voxel and axis.
        label_manager: says whether labels or regions are trained.

    Returns:
        As `masked_target`, on the LR grid. Labels: the one with the largest share of a block;
        regions: those with more than half of it. Where shares are equal, the block's first voxel
        decides: the background would otherwise win every tie, and small structures shrink.
        Masked HR voxels do not count, and a block of which no more than half counts is masked.
    """
    size = prod(scale)
    first = target[(slice(None), slice(None), *(slice(None, None, step) for step in scale))]
    if label_manager.has_regions:
        counted = ~target[:, -1:]
        voxels = block_counts(counted, scale)
        twice = 2 * block_counts(target[:, :-1] & counted, scale)
        at_first = first[:, :-1] & ~first[:, -1:]
        regions = (twice > voxels) | ((twice == voxels) & at_first)
        return torch.cat((regions, 2 * voxels <= size), dim=1)
    most = block_counts(target == 0, scale)
    winner = torch.zeros_like(most, dtype=torch.long)
    voxels = most
    for label in range(1, label_manager.num_segmentation_heads):
        share = block_counts(target == label, scale)
        wins = (share > most) | ((share == most) & (first == label))
        winner = torch.where(wins, label, winner)
        most = torch.maximum(most, share)
        voxels = voxels + share
    return torch.where(2 * voxels > size, winner, MASKED_LABEL)


def block_counts(mask: torch.Tensor, scale: Sequence[int]) -> torch.Tensor:
    """Return how many voxels of a bool mask (B, C, ...) are true per block, float32, exact."""
    pool = {2: avg_pool2d, 3: avg_pool3d}[len(scale)]
    return pool(mask.float(), tuple(scale), divisor_override=1)


class LRGridDiceAndCrossEntropy:
    """`dice_ce` with `"grid": "lr"`: the HR output is skipped.

    The second output, on the LR grid, learns `lr_masked_target`; the coarser ones learn what they
    do otherwise. nnU-Net's weights begin with the second output.

    Args:
        loss: for labels and gathering.
        scale: HR voxels per LR voxel and axis.
    """

    def __init__(self, loss: DiceAndCrossEntropy, scale: Sequence[int]) -> None:
        self._loss = loss
        self._scale = tuple(scale)

    def __call__(self, output: JointOutput, batch: Mapping[str, Any]) -> torch.Tensor:
        """Return the loss, a scalar.

        Raises:
            ValueError: if there is no output on the LR grid, or outputs and targets differ.
        """
        manager, valid = self._loss.label_manager, labelled_valid(batch)
        finest = batch["target"][0]
        shapes = [tuple(out.shape[2:]) for out in output.seg[:2]]
        lr_shape = tuple(n // s for n, s in zip(finest.shape[2:], self._scale, strict=True))
        if shapes[1:] != [lr_shape]:
            raise ValueError(
                f"dice_ce on the grid 'lr' needs a second segmentation output of shape {lr_shape}, "
                f"the network gives {shapes}; it must have deep supervision."
            )
        targets = [
            lr_masked_target(masked_target(finest, valid, manager), self._scale, manager),
            *(masked_target(target, valid, manager) for target in batch["target"][2:]),
        ]
        value = self._loss.of_masked(output.seg[1:], targets, batch.get("labelled"))
        return value + zero_of(output.seg[0]) if self._loss.keep_all else value


def dice_ce_term(context: LossContext, grid: str) -> Term:
    """Return the term `dice_ce`."""
    loss = DiceAndCrossEntropy(
        context.label_manager, batch_dice=context.batch_dice, ddp=context.ddp
    )
    if grid == "lr":
        return LRGridDiceAndCrossEntropy(loss, context.scale)
    return lambda output, batch: loss(
        output.seg, batch["target"], batch["valid"], batch.get("labelled")
    )
