"""From label maps to what the segmentation loss compares with, exactly as in nnU-Net."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from batchgeneratorsv2.transforms.utils.deep_supervision_downsampling import (
    DownsampleSegForDSTransform,
)
from batchgeneratorsv2.transforms.utils.seg_to_regions import ConvertSegmentationToRegionsTransform
from nnunetv2.utilities.label_handling.label_handling import LabelManager


class Targets:
    """Makes the targets of a batch: regions where the dataset has them, one per output.

    Args:
        label_manager: nnU-Net's; with regions, the ignore label becomes a last channel.
        deep_supervision_scales: sizes relative to the HR grid, finest first; None for one target.
    """

    def __init__(
        self,
        label_manager: LabelManager,
        deep_supervision_scales: Sequence[Sequence[float]] | None = None,
    ) -> None:
        self._to_regions = None
        if label_manager.has_regions:
            regions = list(label_manager.foreground_regions)
            if label_manager.has_ignore_label:
                regions.append(label_manager.ignore_label)
            self._to_regions = ConvertSegmentationToRegionsTransform(regions=regions)
        self._scales = deep_supervision_scales

    def __call__(self, hr_seg: torch.Tensor) -> list[torch.Tensor]:
        """Return the targets of label maps (B, 1, Z, Y, X) or (B, 1, Y, X), int16.

        Returns:
            Per scale (B, 1, ...) int16 labels, or (B, R, ...) bool regions. -1, nnU-Net's
            "outside the non-zero crop", is background.
        """
        labels = hr_seg.masked_fill(hr_seg == -1, 0)
        if self._to_regions is not None:
            labels = torch.stack([self._to_regions._apply_to_segmentation(one) for one in labels])
        if self._scales is None:
            return [labels]
        return downsampled(labels, self._scales)


def downsampled(labels: torch.Tensor, scales: Sequence[Sequence[float]]) -> list[torch.Tensor]:
    """Return `labels` (B, C, ...) at every scale, as nnU-Net's deep supervision samples them.

    Args:
        labels: labels, regions or a mask; the dtype is kept.
        scales: size per spatial axis relative to `labels`; all ones returns it as it is.
    """
    # nnU-Net's transform takes one case and treats channels alike, so a batch can pass as channels
    several = DownsampleSegForDSTransform(ds_scales=scales)._apply_to_segmentation(
        labels.flatten(0, 1)
    )
    return [one.unflatten(0, labels.shape[:2]) for one in several]
