"""What the validation patches of an epoch say: hard Dice counts, and SR error against cubic."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from nnunetv2.utilities.label_handling.label_handling import LabelManager

from srseg.geometry.separable import resample
from srseg.training.losses.segmentation import MASKED_LABEL, masked_target


@dataclass(frozen=True)
class EpochScores:
    """Scores of one epoch's validation patches.

    Attributes:
        dice: per foreground label or region; NaN where it never occurs.
        psnr_gain_db: PSNR of the SR image minus that of cubic interpolation (NaN without SR).
        joint_score: half the mean Dice plus half the share of cubic's RMS error that the SR image
            removes; the mean Dice alone without SR. "Best" means the highest moving average of it.
    """

    dice: list[float]
    psnr_gain_db: float
    joint_score: float

    @property
    def mean_dice(self) -> float:
        """Mean over the labels that occur; 0 where none does."""
        return float(np.nanmean(self.dice)) if not np.all(np.isnan(self.dice)) else 0.0


def dice_counts(
    logits: torch.Tensor, target: torch.Tensor, valid: torch.Tensor, label_manager: LabelManager
) -> torch.Tensor:
    """Return (3, K) float64: true positives, false positives, false negatives per foreground class.

    Args:
        logits: (B, K, Z, Y, X) finest segmentation output.
        target: (B, 1 or R, Z, Y, X) as the loader gives it.
        valid: (B, 1, Z, Y, X) bool.
        label_manager: says whether labels or regions are trained.
    """
    masked = masked_target(target, valid, label_manager)
    if label_manager.has_regions:
        truth, counted = masked[:, :-1], ~masked[:, -1:]
        predicted = logits > 0  # sigmoid > 0.5
    else:
        counted = masked != MASKED_LABEL
        classes = torch.arange(1, logits.shape[1], device=logits.device)
        classes = classes.reshape(1, -1, *([1] * (logits.ndim - 2)))
        truth = masked == classes
        predicted = logits.argmax(1, keepdim=True) == classes
    axes = (0, *range(2, logits.ndim))
    return torch.stack(
        [
            (predicted & truth & counted).sum(axes),
            (predicted & ~truth & counted).sum(axes),
            (~predicted & truth & counted).sum(axes),
        ]
    ).double()


def squared_errors(
    sr_image: torch.Tensor | None,
    lr_image: torch.Tensor,
    hr_image: torch.Tensor,
    valid: torch.Tensor,
) -> torch.Tensor:
    """Return (2,) float64: summed squared error of the SR image and of cubic interpolation.

    Both NaN where there is no SR image.
    """
    if sr_image is None:
        return torch.full((2,), float("nan"), dtype=torch.float64)
    cubic = resample(lr_image.float(), hr_image.shape[2:], kind="cubic")
    errors = [((image.float() - hr_image) ** 2 * valid).sum() for image in (sr_image, cubic)]
    return torch.stack(errors).double().cpu()


def epoch_scores(counts: Sequence[np.ndarray], errors: Sequence[np.ndarray]) -> EpochScores:
    """Return the scores of an epoch from the sums over its validation batches.

    Args:
        counts: per batch (3, K), see `dice_counts`.
        errors: per batch (2,), see `squared_errors`.
    """
    true_positive, false_positive, false_negative = np.sum(counts, axis=0)
    denominator = 2 * true_positive + false_positive + false_negative
    with np.errstate(invalid="ignore", divide="ignore"):
        dice = np.where(denominator > 0, 2 * true_positive / denominator, np.nan)
    sr_error, cubic_error = np.sum(errors, axis=0)
    without_sr = EpochScores([float(d) for d in dice], float("nan"), 0.0)
    if not np.isfinite(sr_error) or sr_error <= 0 or cubic_error <= 0:
        return EpochScores(without_sr.dice, float("nan"), without_sr.mean_dice)
    gain_db = float(10 * np.log10(cubic_error / sr_error))
    removed = 1 - float(np.sqrt(sr_error / cubic_error))
    return EpochScores(without_sr.dice, gain_db, 0.5 * without_sr.mean_dice + 0.5 * removed)
