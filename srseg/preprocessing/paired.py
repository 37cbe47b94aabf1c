"""Real LR/HR pairs: the HR image and its labels move onto the LR grid refined by the scale.

The LR image is what a network will see in use, so it stays as it was scanned. Two scans share no
voxel faces; they meet in world coordinates. What the HR scan did not cover is marked as not valid.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from srseg.images.checks import grid_difference
from srseg.images.properties import grid_of, refine_properties
from srseg.images.world import resample_to_grid

MIN_OVERLAP = 0.5  # of the LR field of view; less is a wrong pair or a wrong registration


@dataclass(frozen=True)
class Pair:
    """The HR side of a pair on the refined LR grid, in the reader's axis order.

    Attributes:
        hr_image: (C, Z, Y, X) float32.
        hr_seg: (1, Z, Y, X) labels.
        valid: (Z, Y, X) bool, True inside the HR scan; None where that is everywhere.
        properties: of the refined grid.
    """

    hr_image: np.ndarray
    hr_seg: np.ndarray
    valid: np.ndarray | None
    properties: dict[str, Any]


def on_refined_grid(
    hr: tuple[np.ndarray, np.ndarray, Mapping[str, Any]],
    lr: tuple[np.ndarray, Mapping[str, Any]],
    scale: Sequence[int],
    *,
    case: str,
) -> Pair:
    """Return the HR image and labels of a pair on the LR grid refined by `scale`.

    Args:
        hr: image (C, Z, Y, X), labels (1, Z, Y, X) and properties as read.
        lr: image (C, z, y, x) and properties as read.
        scale: whole numbers (Z, Y, X) in the reader's order; all ones is allowed.
        case: its name, for messages.

    Raises:
        ValueError: if the HR scan covers less than half of the LR field of view, or a format
            without geometry has other than `scale` times the LR voxels.
    """
    hr_image, hr_seg, hr_properties = hr
    lr_image, lr_properties = lr
    properties = refine_properties(lr_properties, scale)
    wanted_shape = tuple(n * s for n, s in zip(lr_image.shape[1:], scale, strict=True))
    wanted = (wanted_shape, properties)
    resampled, valid = onto_grid(
        hr_image, hr_properties, *wanted, interpolation="bspline", what=f"case {case}: the HR image"
    )
    covered = 1.0 if valid is None else float(valid.mean())
    if covered < MIN_OVERLAP:
        raise ValueError(
            f"case {case}: the HR image covers {covered:.0%} of the LR image's field of view, at "
            f"least {MIN_OVERLAP:.0%} is needed; check that the pair belongs together and is "
            f"registered."
        )
    labels, _ = onto_grid(
        hr_seg, hr_properties, *wanted, interpolation="label", what=f"case {case}: the label map"
    )
    return Pair(resampled, labels, valid, properties)


def onto_grid(
    array: np.ndarray,
    properties: Mapping[str, Any],
    wanted_shape: Sequence[int],
    wanted_properties: Mapping[str, Any],
    *,
    interpolation: str,
    what: str,
) -> tuple[np.ndarray, np.ndarray | None]:
    """Return one scan's image or labels on another scan's grid, in world coordinates.

    Training, its validation and `srseg_evaluate` share this, so that a pair's truth is the same
    everywhere.

    Args:
        array: (C, Z, Y, X) as read.
        properties: as read with it.
        wanted_shape: voxels (Z, Y, X) of the other grid.
        wanted_properties: of the other grid, in the form of the same reader.
        interpolation: "bspline" for images, "label" for label maps.
        what: for the message, such as "case a: the HR image".

    Returns:
        The array (C, Z, Y, X) on the other grid, itself where the grids are one; and a bool mask
        (Z, Y, X), True inside the field of view of `array`, None where that is everywhere.

    Raises:
        ValueError: if a format without geometry (PNG, TIFF) has another number of voxels.
    """
    wanted_shape = tuple(int(n) for n in wanted_shape)
    grid, wanted_grid = grid_of(properties, array.shape), grid_of(wanted_properties, wanted_shape)
    if grid is None or wanted_grid is None:
        if array.shape[1:] != wanted_shape:
            raise ValueError(
                f"{what}, in a format without geometry, cannot be brought onto another grid: it "
                f"needs {wanted_shape}, got {array.shape[1:]} voxels (Z, Y, X)."
            )
        return array, None
    if grid_difference(grid, wanted_grid) is None:
        return array, None
    resampled, inside = resample_to_grid(array, grid, wanted_grid, interpolation=interpolation)
    return resampled, None if inside.all() else inside
