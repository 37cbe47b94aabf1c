"""Why the plans hold the numbers they hold, in sentences for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from srseg.degradation.spec import DegradationSpec
from srseg.planning.architecture import HR_WIDTHS
from srseg.planning.grids import PlannedGrids, Wishes
from srseg.planning.scale_rule import NO_SPACING, in_mm

_AXES = "ZYX"
_OPERATORS = {
    "kspace_crop": "a crop of k-space, as a scanner with fewer encoding steps measures",
    "slice_gauss": "a Gaussian slice profile as thick as an LR slice",
    "slab_mean": "the mean over an LR slice's thickness",
    "area": "the mean over an LR voxel",
}


def spacing(grids: PlannedGrids, wishes: Wishes, block: Mapping[str, Any]) -> str:
    """Return why the grids have their spacing (reader order)."""
    lr_mm = [mm * s for mm, s in zip(grids.hr_spacing, grids.choice.scale, strict=True)]
    if wishes.lr_spacing is not None:
        source = "the LR grid is the one of -lr_spacing, the HR grid its refinement"
    elif wishes.hr_spacing is not None:
        source = "the HR grid is the one of -overwrite_target_spacing"
    elif block["paired"]:
        source = "the LR grid follows the real LR images, the HR grid is its refinement"
    else:
        source = "the HR grid has the images' median spacing"
        median_mm = np.median(grids.cases.spacings, axis=0)
        finer = [_AXES[i] for i in range(3) if grids.hr_spacing[i] < 0.999 * median_mm[i]]
        if finer:
            source += f" (along {', '.join(finer)} that of the finest tenth, as slices are thick)"
    if grids.native_axes:
        along = ", ".join(_AXES[i] for i in grids.native_axes)
        source += (
            f"; slices along {along} are far apart and not refined, so every case keeps its own"
        )
    axes = "Z, Y, X" if max(grids.hr_spacing) < NO_SPACING else "Y, X"
    text = f"{in_mm(grids.hr_spacing)} HR, {in_mm(lr_mm)} LR ({axes}); {source}."
    for axis, count in zip(_AXES, block["interpolated_cases"], strict=True):
        if count:
            text += (
                f" Along {axis}, the detail of {count} of {block['num_cases']} cases is clearly "
                "coarser than their voxels (interpolated, zero-filled or smoothed)."
            )
    return text


def patch_size(patch: Sequence[int], lr_median: Sequence[int], gpu_memory_gb: float) -> str:
    """Return why the LR patch is as large as it is."""
    if all(n >= m for n, m in zip(patch, lr_median, strict=True)):
        return (
            f"{_times(patch)} LR voxels hold the whole median LR volume of {_times(lr_median)}, "
            "padded to what the network's strides divide."
        )
    return (
        f"{_times(patch)} of the {_times(lr_median)} LR voxels of the median volume: the largest "
        f"patch of its proportions that fits {gpu_memory_gb:g} GB at batch size 2, HR stage "
        "counted."
    )


def batch_size(batch: int, most_by_memory: int, most_by_cases: int, smallest: int) -> str:
    """Return what limits the batch size."""
    if batch > most_by_cases:
        return f"{batch}, the smallest allowed ({smallest})."
    if batch < most_by_memory:
        return (
            f"{batch}, so that a batch holds at most 5 % of the training voxels; memory would "
            f"allow {most_by_memory}."
        )
    return f"{batch}, as many as fit the memory target."


def hr_width(width: int, hr_fraction: float) -> str:
    """Return why the HR stage is as wide as it is."""
    share = f"the HR stage takes {hr_fraction:.0%} of the memory"
    if width == HR_WIDTHS[0]:
        return f"{width} channels, the default; {share}."
    return (
        f"{width} instead of {HR_WIDTHS[0]} channels: a wider HR stage would leave too small a "
        f"patch; even so {share}."
    )


def degradation(spec: DegradationSpec, transpose: Sequence[int], modality: str) -> str:
    """Return how LR images are simulated, axes named in the reader's order."""
    if spec.paired:
        return "the LR images are real (imagesLrTr); nothing is simulated."
    parts = []
    for operator, words in _OPERATORS.items():
        axes = sorted(transpose[i] for i, axis in enumerate(spec.axes) if axis.operator == operator)
        if axes:
            parts.append(f"along {', '.join(_AXES[axis] for axis in axes)} {words}")
    if not parts:
        return "the scale is 1 everywhere, so nothing is degraded."
    kind = {"other": "other images than CT and MR (by channel_names)"}.get(
        modality, f"{modality} images (by channel_names)"
    )
    return f"{kind}: {'; '.join(parts)}."


def patch_free(largest: Sequence[int], patch: Sequence[int], batch: int) -> str:
    """Return why whole volumes can be trained on."""
    return (
        f"the largest LR volume of {_times(largest)} voxels, padded to {_times(patch)}, fits the "
        f"memory target as a whole with batch size {batch}."
    )


def no_patch_free(largest: Sequence[int], elements: float, budget: float) -> str:
    """Return why there is no `3d_patchfree`."""
    return (
        f"patches: the largest LR volume of {_times(largest)} voxels would take "
        f"{elements / budget:.1f} times the memory target as a whole, so there is no 3d_patchfree."
    )


def _times(values: Sequence[float]) -> str:
    return " x ".join(str(int(v)) for v in values)
