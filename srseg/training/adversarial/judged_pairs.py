"""What a discriminator compares: a truth and what a network made of it, alike in all but content.

Nothing but the content may tell one from the other: neither soft probabilities beside one-hot
masks, nor places without a truth, which are zero on both sides.
"""

from __future__ import annotations

import torch
from nnunetv2.utilities.label_handling.label_handling import LabelManager

from srseg.training.losses.segmentation import MASKED_LABEL, masked_target

MASKS = ("straight_through", "softened")
Pair = tuple[torch.Tensor, torch.Tensor]


def image_pair(sr_image: torch.Tensor, hr_image: torch.Tensor, known: torch.Tensor) -> Pair:
    """Return the real and the made image, float32, zero where there is no HR image.

    Args:
        sr_image: (B, C, Z, Y, X).
        hr_image: the same shape.
        known: (B, 1, Z, Y, X) bool; see `srseg.training.losses.counted.hr_truth`.
    """
    return torch.where(known, hr_image.float(), 0), torch.where(known, sr_image.float(), 0)


def segmentation_pair(
    logits: torch.Tensor,
    target: torch.Tensor,
    known: torch.Tensor,
    label_manager: LabelManager,
    masks: str = "straight_through",
) -> Pair:
    """Return the real and the made segmentation as a channel per logit, float32.

    "straight_through": both sides are masks of zeros and ones; the made one is what the network
    decides for (the largest logit, for regions each logit above 0), with the gradient of its
    probabilities (Bengio et al., 2013). "softened": the made side is the probabilities, the real
    one the same probabilities with those of the true and of the decided class exchanged, without
    a gradient. Both ways the sides are equal wherever the decision is true. Background keeps its
    channel: without it a voxel of background would look like one without a truth.

    Args:
        logits: (B, K, Z, Y, X).
        target: as the loader gives it, finest: (B, 1, ...) labels or (B, R, ...) regions.
        known: (B, 1, Z, Y, X) bool, where labels count; ignored voxels are taken out here.
        label_manager: says whether labels or regions are trained.
        masks: one of `MASKS`.

    Raises:
        ValueError: for unknown `masks`.
    """
    if masks not in MASKS:
        raise ValueError(f"unknown masks '{masks}' of a discriminator; known: {', '.join(MASKS)}.")
    masked, logits = masked_target(target, known, label_manager), logits.float()
    if label_manager.has_regions:
        truth, known = masked[:, :-1], ~masked[:, -1:]
        probabilities, decided = logits.sigmoid(), logits > 0
    else:
        known = masked != MASKED_LABEL
        classes = torch.arange(logits.shape[1], device=logits.device)
        classes = classes.reshape(1, -1, *(1,) * (logits.ndim - 2))
        truth = masked == classes
        probabilities, decided = logits.softmax(1), logits.argmax(1, keepdim=True) == classes
    if masks == "straight_through":
        real = truth.float()
        made = decided.float() + (probabilities - probabilities.detach())  # adds exactly 0
    else:
        made = probabilities
        real = _exchanged(probabilities.detach(), truth, decided, overlap=label_manager.has_regions)
    return torch.where(known, real, 0), torch.where(known, made, 0)


def _exchanged(
    probabilities: torch.Tensor, truth: torch.Tensor, decided: torch.Tensor, *, overlap: bool
) -> torch.Tensor:
    """Return probabilities that decide for the truth as firmly as they did for `decided`."""
    if overlap:
        return torch.where(truth == decided, probabilities, 1 - probabilities)
    of_truth, of_decided = ((probabilities * of).sum(1, keepdim=True) for of in (truth, decided))
    lower = torch.where(decided, of_truth, probabilities)
    return torch.where(truth, of_decided, lower)
