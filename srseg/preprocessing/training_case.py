"""A training case, LR first: degrade on the native grid, then treat the LR as a file would be.

The HR image and the labels follow the LR: the same region, the same intensity map, exactly
`scale` times the voxels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
from nnunetv2.utilities.label_handling.label_handling import LabelManager

from srseg.degradation.degradation import Degradation
from srseg.degradation.spec import DegradationSpec
from srseg.geometry.grid import pad_to_multiple
from srseg.plans.managers import SRSegConfigurationManager, SRSegPlansManager
from srseg.preprocessing.intensity import apply_maps
from srseg.preprocessing.lr_case import OUTSIDE, LRCase, prepare_lr, stored_frame
from srseg.preprocessing.raw_cases import RawCase
from srseg.preprocessing.resampling import resample_segmentation

MAX_CLASS_LOCATIONS = 10_000


@dataclass(frozen=True)
class TrainingCase:
    """The triplet that is stored, in plan order; the HR arrays have `scale` times the voxels.

    Attributes:
        lr_image: (C, z, y, x) float32, normalised.
        hr_image: (C, Z, Y, X) float32, in the same intensity frame, not clipped.
        hr_seg: (1, Z, Y, X) int16, -1 outside the LR image's non-zero mask.
        valid: (1, Z, Y, X) bool, or None where all voxels count.
        properties: nnU-Net's, in HR-native geometry, plus "srseg".
        resampled: whether the stored grid is another one than the native grid.
    """

    lr_image: np.ndarray
    hr_image: np.ndarray
    hr_seg: np.ndarray
    valid: np.ndarray | None
    properties: dict[str, Any]
    resampled: bool


def training_case(
    raw: RawCase,
    plans_manager: SRSegPlansManager,
    configuration_manager: SRSegConfigurationManager,
    label_manager: LabelManager,
) -> TrainingCase:
    """Return the LR/HR/mask triplet of a raw case, both grids over the same field of view."""
    scale = configuration_manager.scale_3d
    order = plans_manager.transpose_forward
    hr_spacing = plans_manager.planned(raw.properties["spacing"])
    unpadded_shape = plans_manager.planned(raw.hr_image.shape[1:])

    hr_image = pad_to_multiple(_transposed(raw.hr_image, order).astype(np.float32), scale)
    hr_seg = pad_to_multiple(_transposed(raw.hr_seg, order), scale)
    if raw.lr_image is None:
        lr_image = simulate_lr(hr_image, hr_spacing, configuration_manager)
    else:
        lr_image = _transposed(raw.lr_image, order).astype(np.float32)
    lr_spacing = [mm * s for mm, s in zip(hr_spacing, scale, strict=True)]
    lr_case = prepare_lr(lr_image, lr_spacing, plans_manager, configuration_manager)

    hr_box = [[start * s, stop * s] for (start, stop), s in zip(lr_case.box, scale, strict=True)]
    inside = (slice(None), *(slice(*bounds) for bounds in hr_box))
    hr_image = apply_maps(hr_image[inside], lr_case.maps)
    hr_seg = _mark_outside(hr_seg[inside].astype(np.int16), lr_case, scale)
    cropped_shape = hr_seg.shape[1:]

    # exactly scale times the LR shape, not rounded on its own: the grids must keep their faces
    new_shape = tuple(n * s for n, s in zip(lr_case.shape, scale, strict=True))
    target_spacing = [mm / s for mm, s in zip(lr_case.spacing, scale, strict=True)]
    hr_image = configuration_manager.resampling_fn_data(
        hr_image, new_shape, hr_spacing, target_spacing
    )
    hr_seg = configuration_manager.resampling_fn_seg(hr_seg, new_shape, hr_spacing, target_spacing)

    properties = {
        **raw.properties,
        "spacing": [float(mm) for mm in raw.properties["spacing"]],  # readers return NumPy's
        # the original shape: nnU-Net's export then cuts the padding off again
        "shape_before_cropping": tuple(int(n) for n in unpadded_shape),
        "bbox_used_for_cropping": hr_box,
        "shape_after_cropping_and_before_resampling": tuple(int(n) for n in cropped_shape),
        "class_locations": class_locations(hr_seg, label_manager) if raw.labelled else {},
        "srseg": stored_frame(lr_case, scale, raw.dtypes),
    }
    return TrainingCase(
        lr_image=lr_case.image,
        hr_image=np.ascontiguousarray(hr_image, dtype=np.float32),
        hr_seg=np.ascontiguousarray(hr_seg),
        valid=_valid_region(raw, order, scale, inside, new_shape),
        properties=properties,
        resampled=tuple(cropped_shape) != new_shape,
    )


def simulate_lr(
    hr_image: np.ndarray,
    hr_spacing: Sequence[float],
    configuration_manager: SRSegConfigurationManager,
) -> np.ndarray:
    """Return the planned degradation of a (C, Z, Y, X) image in plan order, float32.

    Args:
        hr_image: raw values on the native grid; `scale` must divide its shape.
        hr_spacing: its native spacing in mm, plan order: kernels are in mm.
        configuration_manager: for the degradation and the scale.
    """
    degradation = Degradation(
        DegradationSpec.from_json(configuration_manager.degradation),
        configuration_manager.scale_3d,
        tuple(float(mm) for mm in hr_spacing),
    )
    hr_image = np.ascontiguousarray(hr_image, dtype=np.float32)
    with torch.no_grad():
        return degradation(torch.from_numpy(hr_image)).numpy()


def class_locations(hr_seg: np.ndarray, label_manager: LabelManager) -> dict:
    """Return up to 10 000 voxels (c, z, y, x) of each class or region, int32.

    nnU-Net's loader oversamples foreground by them; with an ignore label there is one more entry,
    of everything annotated. A class that is absent has an empty list.
    """
    classes = (
        label_manager.foreground_regions
        if label_manager.has_regions
        else label_manager.foreground_labels
    )
    classes = list(classes)
    if label_manager.has_ignore_label:
        classes.append([OUTSIDE, *label_manager.all_labels])
    found = DefaultPreprocessor._sample_foreground_locations(
        hr_seg, classes, min_num_samples=MAX_CLASS_LOCATIONS, min_percent_coverage=0
    )
    return {
        name: voxels if len(voxels) == 0 else voxels.astype(np.int32)
        for name, voxels in found.items()
    }


def _transposed(image: np.ndarray, order: Sequence[int]) -> np.ndarray:
    """Return a (C, Z, Y, X) array with its spatial axes in plan order."""
    return image.transpose([0, *(axis + 1 for axis in order)])


def _mark_outside(hr_seg: np.ndarray, lr_case: LRCase, scale: Sequence[int]) -> np.ndarray:
    """Write nnU-Net's -1 into background voxels outside the LR image's non-zero mask."""
    if (lr_case.nonzero == OUTSIDE).any():
        outside = lr_case.nonzero == OUTSIDE
        for axis, s in enumerate(scale, start=1):
            outside = outside.repeat(s, axis=axis)
        hr_seg[(hr_seg == 0) & outside] = OUTSIDE
    return hr_seg


def _valid_region(
    raw: RawCase,
    order: Sequence[int],
    scale: Sequence[int],
    inside: tuple[slice, ...],
    new_shape: tuple[int, ...],
) -> np.ndarray | None:
    """Return the (1, Z, Y, X) bool mask on the stored grid, None where all voxels are valid."""
    if raw.valid is None:
        return None
    valid = pad_to_multiple(_transposed(raw.valid[None], order), scale)[inside]
    valid = resample_segmentation(valid.astype(np.int8), new_shape).astype(bool)
    return None if valid.all() else valid
