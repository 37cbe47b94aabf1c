"""PFSeg's task fusion (Wang et al., MICCAI 2021): losses on segmentation times image.

Both look at the foreground class by class, at probability * SR image and truth * HR image, on
copies of the images that are rescaled so that the batch's HR voxels span [0, 1] per channel
(`srseg.training.losses.intensity.whole_range`). A voxel counts where labels and HR image are known.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from nnunetv2.utilities.label_handling.label_handling import LabelManager

from srseg.networks.output import JointOutput
from srseg.training.losses.counted import hr_truth, labelled_valid, masked_mean
from srseg.training.losses.gram import gram_distance
from srseg.training.losses.intensity import rescaled, whole_range
from srseg.training.losses.segmentation import MASKED_LABEL, masked_target
from srseg.training.losses.terms import LossContext, Option, Term, is_number

SIMILARITY_OPTIONS = {
    "pool": Option(
        10,
        "a whole number of HR voxels >= 1",
        lambda value: is_number(value) and value == int(value) >= 1,
    )
}

Products = Iterator[tuple[torch.Tensor, torch.Tensor]]


def fused_products(
    output: JointOutput, batch: Mapping[str, Any], label_manager: LabelManager
) -> tuple[Products, torch.Tensor]:
    """Return (probability * SR image, truth * HR image) per class, and where they count.

    Returns:
        An iterator over foreground classes or regions with two (B, C, Z, Y, X) each, one class in
        memory at a time, and (B, 1, Z, Y, X) bool.
    """
    hr_image, valid = hr_truth(batch)
    target = masked_target(batch["target"][0], valid & labelled_valid(batch), label_manager)
    logits = output.seg[0].float()
    if label_manager.has_regions:
        counted = ~target[:, -1:]
        probabilities = logits.sigmoid()
        truths = (target[:, c : c + 1] for c in range(logits.shape[1]))
    else:
        counted = target != MASKED_LABEL
        probabilities = logits.softmax(1)[:, 1:]
        truths = (target == c for c in range(1, logits.shape[1]))
    ends = whole_range(hr_image, valid)
    sr_image, hr_image = rescaled(output.sr, *ends), rescaled(hr_image, *ends)
    products = (
        (probabilities[:, c : c + 1] * sr_image, truth * hr_image) for c, truth in enumerate(truths)
    )
    return products, counted


def target_enhanced_term(context: LossContext) -> Term:
    """Return the term `target_enhanced` (PFSeg's TEL): the mean squared difference of products.

    Summed over foreground classes, averaged over voxels that count and over channels.
    """

    def term(output: JointOutput, batch: Mapping[str, Any]) -> torch.Tensor:
        products, counted = fused_products(output, batch, context.label_manager)
        return torch.stack(
            [masked_mean((own - true).square(), counted) for own, true in products]
        ).sum()

    return term


def similarity_term(context: LossContext, pool: int) -> Term:
    """Return the term `similarity` (PFSeg's SSL): how alike cells of the products are to others.

    Per class, with f and g the products averaged over cells of `pool` voxels a side: the mean of
    |f_i f_j - g_i g_j| over all pairs of cells. The published code divides by (h w)^2 where there
    are (d h w)^2 pairs, and does not average over the batch; this is the mean, over samples and
    channels too. Summed over classes.
    """

    def term(output: JointOutput, batch: Mapping[str, Any]) -> torch.Tensor:
        products, counted = fused_products(output, batch, context.label_manager)
        voxels = cell_sums(counted.float(), int(pool))
        pairs = (voxels > 0).sum(-1).square()  # (B, 1)
        terms = []
        for own, true in products:
            f, g = (cell_sums(x * counted, int(pool)) / voxels.clamp_min(1) for x in (own, true))
            mean = gram_distance(f, g) / pairs.clamp_min(1)  # (B, C)
            terms.append(mean.sum() / ((pairs > 0).sum() * mean.shape[1]).clamp_min(1))
        return torch.stack(terms).sum().float()

    return term


def cell_sums(image: torch.Tensor, pool: int) -> torch.Tensor:
    """Return (B, C, N): the sums over cells of `pool` voxels a side.

    As in average pooling, voxels beyond the last whole cell are dropped; along an axis with fewer
    voxels the cell is the axis. Backward keeps no image, which pooling layers do.

    Args:
        image: (B, C, Z, Y, X) or (B, C, Y, X).
        pool: voxels.
    """
    for axis in range(image.ndim - 1, 1, -1):
        size = min(pool, image.shape[axis])
        whole = image.narrow(axis, 0, image.shape[axis] // size * size)
        image = whole.unflatten(axis, (-1, size)).sum(axis + 1)
    return image.flatten(2)
