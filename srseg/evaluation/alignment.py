"""Whether the voxels of a prediction, its reference and the images beside them coincide."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from srseg.geometry.grid import Grid
from srseg.images.checks import describe_grid, grid_difference
from srseg.images.properties import grid_of

RESAMPLING_HINT = "--resample_references brings references of another scan onto the predicted grid"


def covers_reference(
    shape: Sequence[int],
    properties: Mapping[str, Any],
    reference_shape: Sequence[int],
    reference_properties: Mapping[str, Any],
    *,
    scale: Sequence[int] | None,
) -> bool:
    """Return whether every voxel of a reference is one of the image; see `crop_to_reference`."""
    wanted = tuple(int(n) for n in reference_shape[-3:])
    further = [n - m for n, m in zip(shape[-3:], wanted, strict=True)]
    allowed: Sequence[float] = [float("inf")] * 3
    if grid_of(properties, shape) is None:
        allowed = scale or (1, 1, 1)
    if any(not 0 <= n < most for n, most in zip(further, allowed, strict=True)):
        return False
    same_part = _grid(properties, wanted), _grid(reference_properties, wanted)
    return grid_difference(*same_part) is None


def crop_to_reference(
    array: np.ndarray,
    properties: Mapping[str, Any],
    reference_shape: Sequence[int],
    reference_properties: Mapping[str, Any],
    *,
    what: str,
    scale: Sequence[int] | None,
    hint: str = "",
) -> np.ndarray:
    """Return `array` (C, Z, Y, X) without what reaches beyond its reference at the high end.

    A prediction covers its LR image, so it can reach further than an HR reference that the scale
    does not divide. Voxels must coincide: same spacing, direction and origin. Formats without
    geometry (PNG, TIFF) can only be trusted to reach less than one LR voxel further.

    Args:
        array: on the grid of `properties`.
        properties: as read.
        reference_shape: (..., Z, Y, X).
        reference_properties: as read with the reference.
        what: for the message, such as "case a: the prediction".
        scale: HR voxels per LR voxel (Z, Y, X), None where unknown.
        hint: what helps where there is geometry, for the end of the message.

    Raises:
        ValueError: naming both grids, if they are not so.
    """
    grids = (array.shape, properties, reference_shape, reference_properties)
    if not covers_reference(*grids, scale=scale):
        has_geometry = grid_of(properties, array.shape) is not None
        _raise_different(*grids, what, hint=hint if has_geometry else "")
    return array[(..., *(slice(int(n)) for n in reference_shape[-3:]))]


def check_same_grid(
    shape: Sequence[int],
    properties: Mapping[str, Any],
    reference_shape: Sequence[int],
    reference_properties: Mapping[str, Any],
    what: str,
    *,
    other: str = "reference",
) -> None:
    """Raise ValueError if not all voxels coincide with those of the `other`."""
    here, there = _grid(properties, shape), _grid(reference_properties, reference_shape)
    if grid_difference(here, there) is not None:
        grids = (shape, properties, reference_shape, reference_properties)
        _raise_different(*grids, what, other=other)


def _raise_different(
    shape: Sequence[int],
    properties: Mapping[str, Any],
    reference_shape: Sequence[int],
    reference_properties: Mapping[str, Any],
    what: str,
    *,
    other: str = "reference",
    hint: str = "",
) -> None:
    here, there = _grid(properties, shape), _grid(reference_properties, reference_shape)
    raise ValueError(
        f"{what} is not on its {other}'s grid: {describe_grid(here)}; the {other} has "
        f"{describe_grid(there)}{'; ' if hint else ''}{hint}."
    )


def _grid(properties: Mapping[str, Any], shape: Sequence[int]) -> Grid:
    grid = grid_of(properties, shape)
    if grid is not None:
        return grid
    spacing = tuple(float(mm) for mm in properties["spacing"])  # PNG and TIFF know no more
    return Grid(tuple(int(n) for n in shape[-3:]), spacing)


def check_refines(
    sr_shape: Sequence[int],
    sr_properties: Mapping[str, Any],
    lr_shape: Sequence[int],
    lr_properties: Mapping[str, Any],
    scale: Sequence[int],
    case: str,
) -> None:
    """Raise ValueError if the SR image is not on the refined LR grid; padding may be missing.

    Without geometry only the shapes can tell: PNG's pixels are 1 wide on every grid.
    """
    sr_grid = _grid(sr_properties, sr_shape)
    padded = tuple(-(-n // s) * s for n, s in zip(sr_grid.shape, scale, strict=True))
    refined = _grid(lr_properties, lr_shape).refined(scale)
    has_geometry = grid_of(sr_properties, sr_shape) is not None
    if has_geometry:
        fits = grid_difference(replace(sr_grid, shape=padded), refined) is None
    else:
        fits = padded == refined.shape
    if not fits:
        raise ValueError(
            f"{case}: the SR image is not on the LR image's grid refined by "
            f"{'x'.join(str(s) for s in scale)}: {describe_grid(sr_grid)}; refined, the LR image "
            f"has {describe_grid(refined)}."
        )


def scale_between(sr_shape: Sequence[int], lr_shape: Sequence[int]) -> tuple[int, ...]:
    """Return how many SR voxels an LR voxel has per axis (Z, Y, X); padding may be missing."""
    pairs = zip(sr_shape[-3:], lr_shape[-3:], strict=True)
    return tuple(max(1, -(-n_sr // n_lr)) for n_sr, n_lr in pairs)
