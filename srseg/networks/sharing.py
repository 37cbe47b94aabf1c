"""How much of a network the two tasks share, and whether one reads the other's result."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from srseg.networks.decoder import Decoder
from srseg.networks.hr_stage import HRStage
from srseg.networks.paired_hr_stages import PairedHRStages
from srseg.networks.sr_into_seg import SeeingHRStage, SRIntoSeg

SPLITS = ("hr_stage", "decoder", "bottleneck")


def check_sharing(split: str, sr_into_seg: bool, *, sr_head: bool) -> None:
    """Check how the tasks are to share a network.

    Raises:
        ValueError: if the split is unknown, or there is no second task to share with.
    """
    if split not in SPLITS:
        raise ValueError(f"unknown split '{split}'; known: {', '.join(SPLITS)}.")
    asked = f"split '{split}'" if split != "hr_stage" else "sr_into_seg" if sr_into_seg else None
    if asked and not sr_head:
        raise ValueError(f"{asked} needs an SR head, but sr_head is false.")


def sr_decoder(decoder: Decoder, split: str) -> Decoder | None:
    """Return the SR branch's decoder: all stages, the finest one, or None, as `split` says."""
    if split == "hr_stage":
        return None
    twin = decoder.twin()
    if split == "decoder":
        twin.transpconvs, twin.stages = twin.transpconvs[-1:], twin.stages[-1:]
    return twin


def build_hr_stage(
    in_channels: int,
    width: int,
    *,
    split: str,
    sr_into_seg: bool,
    input_clip: Sequence[Sequence[float] | None] | None,
    **options: Any,
) -> HRStage | PairedHRStages:
    """Return everything after the trunk.

    Args:
        in_channels: of one task's finest features.
        width: channels on the HR grid; two stages have as many each.
        split: one of `SPLITS`.
        sr_into_seg: whether the segmentation sees the SR image.
        input_clip: the trunk's bounds per channel.
        **options: of `HRStage`.
    """
    if split == "hr_stage":
        if sr_into_seg:
            return SeeingHRStage(in_channels, width, input_clip=input_clip, **options)
        return HRStage(in_channels, width, **options)
    segmentation = HRStage(in_channels, width, **options | {"num_sr_channels": 0})
    super_resolution = HRStage(in_channels, width, **options | {"num_classes": 0})
    fusion = None
    if sr_into_seg:
        fusion = SRIntoSeg(segmentation, options["num_sr_channels"], input_clip)
    return PairedHRStages(segmentation, super_resolution, sr_into_seg=fusion)
