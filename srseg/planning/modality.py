"""What kind of scanner made the images: it decides how a coarser scan would have looked."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

SLICE_RATIO = 2.0  # LR spacing to the next coarser one from which slices were scanned one by one

_CT = re.compile(r"(cb|ld|ne|ce)?cta?\d*")
_MR = re.compile(
    r".*mri?|mri?.*|t[12].*|.*flair|adc|[mb]?dwi|b\d+|hbv|dti|dce|dsc|swi|.*cine.*|pdw?|pd2?w?fs|"
    r"bold|asl|.*lge|ssfp|mprage|vibe|dixon.*|tof"
)


def modality_of(channel_names: Iterable[str]) -> str:
    """Return "CT", "MR" or "other" for the channel names of dataset.json.

    Words of a name are compared without case. One CT channel makes a CT dataset (PET/CT: slices of
    one thickness); MR asks for all channels.
    """
    words = [re.split(r"[^a-z0-9]+", str(name).lower()) for name in channel_names]
    if any(_CT.fullmatch(word) for name in words for word in name):
        return "CT"
    if words and all(any(_MR.fullmatch(word) for word in name) for name in words):
        return "MR"
    return "other"


def is_multislice(lr_spacing: Sequence[float]) -> bool:
    """Return whether LR voxels are clearly longer along one axis: a stack of 2-D slices."""
    *_, second, largest = sorted(lr_spacing)
    return largest >= SLICE_RATIO * second * (1 - 1e-6)
