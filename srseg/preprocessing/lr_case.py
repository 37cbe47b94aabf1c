"""What happens to an LR image, be it a file at inference or a simulated one in training.

Crop to non-zero, normalise by its own statistics, resample to the plan's LR spacing. Training and
inference share this one function, so that a network sees in use what it saw in training.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from nnunetv2.preprocessing.cropping.cropping import crop_to_nonzero

from srseg.plans.managers import SRSegConfigurationManager, SRSegPlansManager
from srseg.preprocessing.intensity import IntensityMap, apply_maps, intensity_maps

KEPT_RATIO = 2.01  # of native to planned slice distance; 5 mm and 10 mm are meant to be in it
NONZERO, OUTSIDE = 0, -1  # nnU-Net's labels in and out of the non-zero mask


NATIVE_LR = "native_lr"  # key of `properties["srseg"]` while an LR file is predicted


@dataclass(frozen=True)
class LRCase:
    """An LR image as the network reads it, and how it came about; all in plan order.

    Attributes:
        image: (C, z, y, x) float32, normalised, on the plan's LR spacing.
        native: the same on the native grid inside `box`; `image` itself where nothing is resampled.
        nonzero: (1, z, y, x) int8 on the native grid inside `box`: 0 in the non-zero mask, -1 out.
        maps: the intensity map of each channel.
        box: [start, stop) per axis: the part of the native LR grid that was kept.
        native_shape: voxels of the native LR grid before the crop.
        native_spacing: its spacing in mm.
        spacing: mm of `image`'s grid: as planned, but see `target_spacing`.
    """

    image: np.ndarray
    native: np.ndarray
    nonzero: np.ndarray
    maps: list[IntensityMap]
    box: list[list[int]]
    native_shape: tuple[int, int, int]
    native_spacing: tuple[float, float, float]
    spacing: tuple[float, float, float]

    @property
    def cropped_shape(self) -> tuple[int, int, int]:
        """Voxels of the native grid inside the box."""
        return tuple(int(n) for n in self.nonzero.shape[1:])

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels of `image`."""
        return tuple(int(n) for n in self.image.shape[1:])


def prepare_lr(
    lr_image: np.ndarray,
    native_spacing: Sequence[float],
    plans_manager: SRSegPlansManager,
    configuration_manager: SRSegConfigurationManager,
) -> LRCase:
    """Return the LR image cropped to non-zero, normalised and resampled to the plan's LR spacing.

    Args:
        lr_image: (C, z, y, x) raw, in plan order.
        native_spacing: its spacing in mm, plan order.
        plans_manager: for the dataset's foreground intensities (CT).
        configuration_manager: for the spacing and the normalisation.
    """
    cropped, nonzero, box = crop_to_nonzero(lr_image)
    spacing = target_spacing(native_spacing, configuration_manager)
    new_shape = resampled_shape(cropped.shape[1:], native_spacing, spacing)
    maps = intensity_maps(
        cropped,
        nonzero[0] == NONZERO,
        schemes=configuration_manager.normalization_schemes,
        use_mask=configuration_manager.use_mask_for_norm,
        dataset_statistics=plans_manager.foreground_intensity_properties_per_channel,
    )
    normalised = apply_maps(cropped, maps)
    image = configuration_manager.resampling_fn_data(normalised, new_shape, native_spacing, spacing)
    return LRCase(
        image=np.ascontiguousarray(image, dtype=np.float32),
        native=normalised,
        nonzero=nonzero,
        maps=maps,
        box=[[int(start), int(stop)] for start, stop in box],
        native_shape=tuple(int(n) for n in lr_image.shape[1:]),
        native_spacing=tuple(float(mm) for mm in native_spacing),
        spacing=spacing,
    )


def resampled_shape(
    shape: Sequence[int], old_spacing: Sequence[float], new_spacing: Sequence[float]
) -> tuple[int, ...]:
    """Return the voxels per axis that nnU-Net gives an image resampled from one spacing to another.

    At least one: a much coarser input must not vanish. nnU-Net's own function lies in a module that
    imports pandas, which every prediction would wait for.
    """
    axes = zip(old_spacing, new_spacing, shape, strict=True)
    return tuple(max(1, round(float(old) / float(new) * int(n))) for old, new, n in axes)


def target_spacing(
    native_spacing: Sequence[float], configuration_manager: SRSegConfigurationManager
) -> tuple[float, ...]:
    """Return the LR spacing in mm that an image of `native_spacing` is resampled to.

    A 2d configuration keeps the slices. So do the plans' `native_axes`: slices far apart are not
    interpolated, for nothing between them is known and what is made of the interpolated ones does
    not survive the way back. Only slices over twice or under half as far apart are.
    """
    planned = [float(mm) for mm in configuration_manager.spacing]
    if len(planned) == 2:
        return (float(native_spacing[0]), *planned)
    for axis in configuration_manager.native_axes:
        ratio = float(native_spacing[axis]) / planned[axis]
        if 1 / KEPT_RATIO <= ratio <= KEPT_RATIO:
            planned[axis] = float(native_spacing[axis])
    return tuple(planned)


def stored_frame(lr_case: LRCase, scale: Sequence[int], dtypes: Sequence[str]) -> dict:
    """Return the `properties["srseg"]` of a case, plain values only.

    Args:
        lr_case: the prepared LR image.
        scale: whole numbers (Z, Y, X), plan order.
        dtypes: name of the dtype that each channel's raw file stores, for writing SR images.
    """
    return {
        "slope": [m.slope for m in lr_case.maps],
        "intercept": [m.intercept for m in lr_case.maps],
        "background": [m.intercept for m in lr_case.maps],  # the normalised value of raw 0
        "lr_shape": lr_case.shape,
        "hr_shape": tuple(n * s for n, s in zip(lr_case.shape, scale, strict=True)),
        "scale": tuple(int(s) for s in scale),
        "dtype": list(dtypes),
    }
