"""Which part of which case a sample shows.

A patch is a box of LR voxels; its HR box is `scale` times it, so the two always coincide. It
reaches outside a case only along axes where the case is smaller than the patch, and then centred,
as at inference. (nnU-Net lets a patch hang over the border by half its size.)
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

LabelKey = int | tuple[int, ...]


def wants_foreground(sample: int, batch_size: int, foreground_percent: float) -> bool:
    """Return whether the sample at this position of the batch must show foreground.

    As in nnU-Net: the last `foreground_percent` (a share, 0 to 1) of a batch does, rounded.
    """
    return sample >= round(batch_size * (1 - foreground_percent))


def single_sample_share(foreground_percent: float) -> float:
    """Return how often the only sample of a batch must show foreground.

    The share of a batch of two, nnU-Net's smallest: by its rule a single sample never would, and a
    method whose network leaves memory for one sample would be trained on other patches.
    """
    return sum(wants_foreground(sample, 2, foreground_percent) for sample in (0, 1)) / 2


def num_unlabelled(position: int, batch_size: int, fraction: float) -> int:
    """Return how many samples of a batch show cases without labels.

    What `fraction` leaves over of a whole sample adds up from batch to batch, so the share holds
    for any batch size; single samples alternate at 0.5, beginning with a labelled one. Of two
    samples or more, one at least is labelled.

    Args:
        position: of the batch; consecutive batches have consecutive ones.
        batch_size: samples of the whole batch.
        fraction: share of samples, 0 to 1.
    """
    share = batch_size * fraction
    if batch_size > 1:
        share = min(share, batch_size - 1)
    return math.floor((position + 1) * share) - math.floor(position * share)


def padding_below(shape: Sequence[int], patch_size: Sequence[int]) -> np.ndarray:
    """Return how many voxels of padding precede a case, per axis (0 where it fills the patch)."""
    return np.maximum(np.asarray(patch_size) - shape, 0) // 2


def draw_start(
    generator: np.random.Generator,
    lr_shape: Sequence[int],
    lr_patch_size: Sequence[int],
    *,
    centre: Sequence[int] | None = None,
) -> np.ndarray:
    """Return the first LR voxel (z, y, x) of a patch; negative where the case is too small.

    Args:
        generator: draws the position, once per axis, whether `centre` is given or not.
        lr_shape: of the case.
        lr_patch_size: of the patch.
        centre: an LR voxel to put in the middle, as far as the case's border allows.
    """
    room = np.asarray(lr_shape) - lr_patch_size
    highest = np.maximum(room, 0)
    start = generator.integers(0, highest + 1)
    if centre is not None:
        start = np.clip(np.asarray(centre) - np.asarray(lr_patch_size) // 2, 0, highest)
    return np.where(room < 0, -padding_below(lr_shape, lr_patch_size), start)


def draw_voxel(
    generator: np.random.Generator,
    class_locations: Mapping[LabelKey, Any],
    *,
    annotated: tuple[int, ...],
    foreground: bool,
) -> np.ndarray | None:
    """Return an HR voxel (Z, Y, X) that a patch should show, None if the case has no such.

    Args:
        generator: draws class and voxel.
        class_locations: (n, 3) HR voxels per label, or per region (a tuple of labels).
        annotated: the key of everything annotated, where the dataset has an ignore label. A
            patch shows it when no foreground is wanted, and when the case has nothing else.
        foreground: draw a foreground class evenly, then a voxel; else an annotated voxel.
    """
    found = [key for key, voxels in class_locations.items() if len(voxels) > 0]
    if foreground:
        found = [key for key in found if key != annotated] or found
    else:
        found = [key for key in found if key == annotated]
    if not found:
        return None
    voxels = class_locations[found[generator.integers(len(found))]]
    return np.asarray(voxels[generator.integers(len(voxels))], dtype=np.int64)
