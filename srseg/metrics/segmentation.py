"""Overlap, boundary and volume of a binary mask against its reference, in mm.

A *surface* is what marching cubes draws between the voxel centres of a mask: every 2x2x2 block of
voxels that holds some but not all of the mask carries one surface element at the block's centre,
with the area of its triangles (Nikolov et al., arXiv 1809.04430; in 2-D, segments of the contour
in 2x2 blocks). Beyond the volume there is background, so a mask that touches the border is closed
there. Distances run from every element of one surface to the nearest of the other and are weighted
by area: a boundary counts by its size, not by the number of voxels it happens to cross. An axis
with a single voxel is no direction to measure along; the mask is then taken as 2-D.

Empty masks: with both empty there is nothing to score and the values are NaN, which tables leave
out of the mean but count. With one empty Dice and NSD are 0 and HD95 is the volume's diagonal.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.spatial import cKDTree
from skimage.measure import marching_cubes, mesh_surface_area

# Distances are sums of voxel edges: one that equals the tolerance must not fall to rounding.
_ROUNDING = 1 + 1e-6


@dataclass(frozen=True)
class SurfaceDistances:
    """How far two surfaces lie apart, element by element.

    Attributes:
        predicted_mm: from each element of the predicted surface to the reference's.
        reference_mm: from each element of the reference surface to the predicted one.
        predicted_areas: of the predicted elements, mm^2 (2-D: lengths, mm).
        reference_areas: of the reference's elements.
        diagonal_mm: of the whole volume, what HD95 is when one mask is empty.
    """

    predicted_mm: np.ndarray
    reference_mm: np.ndarray
    predicted_areas: np.ndarray
    reference_areas: np.ndarray
    diagonal_mm: float

    @property
    def num_empty(self) -> int:
        """How many of the two masks are empty."""
        return (len(self.predicted_areas) == 0) + (len(self.reference_areas) == 0)


def dice(predicted: np.ndarray, reference: np.ndarray) -> float:
    """Return 2 |A and B| / (|A| + |B|); NaN when both masks are empty.

    Raises:
        ValueError: if the shapes differ.
    """
    predicted, reference = _masks(predicted, reference)
    total = int(np.count_nonzero(predicted)) + int(np.count_nonzero(reference))
    return 2 * int(np.count_nonzero(predicted & reference)) / total if total else float("nan")


def volume_error(predicted: np.ndarray, reference: np.ndarray) -> float:
    """Return the signed relative volume error (predicted - reference) / reference.

    Positive is too large; -1 when only the prediction is empty. NaN when the reference is empty:
    there is no volume to relate to.

    Raises:
        ValueError: if the shapes differ.
    """
    predicted, reference = _masks(predicted, reference)
    volume = int(np.count_nonzero(reference))
    return (int(np.count_nonzero(predicted)) - volume) / volume if volume else float("nan")


def surface_distances(
    predicted: np.ndarray, reference: np.ndarray, spacing: Sequence[float]
) -> SurfaceDistances:
    """Return the distances between the surfaces of two masks.

    Args:
        predicted: (Z, Y, X) bool.
        reference: (Z, Y, X) bool.
        spacing: mm (Z, Y, X).

    Raises:
        ValueError: if the masks are not 3-D and of one shape, or the spacing is not three
            positive numbers.
    """
    predicted, reference = _masks(predicted, reference)
    if predicted.ndim != 3:
        raise ValueError(f"masks must be (Z, Y, X), got shape {predicted.shape}.")
    spacing = tuple(float(mm) for mm in spacing)
    if len(spacing) != 3 or not all(mm > 0 for mm in spacing):
        raise ValueError(f"spacing must be three positive numbers (Z, Y, X) in mm, got {spacing}.")
    if 1 in predicted.shape:
        flat = predicted.shape.index(1)
        predicted, reference = predicted.take(0, flat), reference.take(0, flat)
        spacing = (*spacing[:flat], *spacing[flat + 1 :])
    diagonal_mm = float(np.linalg.norm(np.multiply(predicted.shape, spacing)))
    box = _bounding_box(predicted | reference)
    codes_predicted = _block_codes(predicted[box])
    codes_reference = _block_codes(reference[box])
    predicted_at, predicted_areas = _elements(codes_predicted, spacing)
    reference_at, reference_areas = _elements(codes_reference, spacing)
    return SurfaceDistances(
        predicted_mm=_to_nearest(predicted_at, reference_at),
        reference_mm=_to_nearest(reference_at, predicted_at),
        predicted_areas=predicted_areas,
        reference_areas=reference_areas,
        diagonal_mm=diagonal_mm,
    )


def nsd(distances: SurfaceDistances, *, tolerance_mm: float) -> float:
    """Return the normalised surface distance ("surface Dice") at a tolerance.

    The share of both surfaces' area that lies within `tolerance_mm` of the other surface. NaN when
    both masks are empty, 0 when one is.

    Raises:
        ValueError: if the tolerance is negative.
    """
    if tolerance_mm < 0:
        raise ValueError(f"the tolerance must be at least 0 mm, got {tolerance_mm}.")
    if distances.num_empty:
        return float("nan") if distances.num_empty == 2 else 0.0
    near = tolerance_mm * _ROUNDING
    within = distances.predicted_areas[distances.predicted_mm <= near].sum()
    within += distances.reference_areas[distances.reference_mm <= near].sum()
    return float(within / (distances.predicted_areas.sum() + distances.reference_areas.sum()))


def hd95(distances: SurfaceDistances) -> float:
    """Return the 95th percentile Hausdorff distance in mm, the larger of both directions.

    Percentiles are of surface area. NaN when both masks are empty; the diagonal of the volume when
    one is.
    """
    if distances.num_empty:
        return float("nan") if distances.num_empty == 2 else distances.diagonal_mm
    return max(
        _area_percentile(distances.predicted_mm, distances.predicted_areas, 0.95),
        _area_percentile(distances.reference_mm, distances.reference_areas, 0.95),
    )


def _masks(predicted: np.ndarray, reference: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if predicted.shape != reference.shape:
        raise ValueError(
            f"prediction and reference differ in shape: {predicted.shape} and {reference.shape}."
        )
    return predicted.astype(bool, copy=False), reference.astype(bool, copy=False)


def _bounding_box(mask: np.ndarray) -> tuple[slice, ...]:
    box = []
    for axis in range(mask.ndim):
        others = tuple(a for a in range(mask.ndim) if a != axis)
        there = np.flatnonzero(mask.any(axis=others))
        box.append(slice(there[0], there[-1] + 1) if len(there) else slice(0, 0))
    return tuple(box)


def _block_codes(mask: np.ndarray) -> np.ndarray:
    """Return for each block of 2 voxels per axis which of them are in the mask, one bit each."""
    padded = np.pad(mask, 1).astype(np.uint8)
    codes = np.zeros([n + 1 for n in mask.shape], dtype=np.uint8)
    for bit, corner in enumerate(np.ndindex(*(2,) * mask.ndim)):
        voxels = tuple(slice(c, c + n) for c, n in zip(corner, codes.shape, strict=True))
        codes |= padded[voxels] << bit
    return codes


def _elements(codes: np.ndarray, spacing: tuple[float, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Return where (N, ndim; mm) the surface elements are, and their areas (N,)."""
    sizes = _element_sizes(spacing)
    at = np.nonzero(sizes[codes])
    return np.stack(at, axis=1) * np.asarray(spacing), sizes[codes[at]]


@lru_cache(maxsize=64)
def _element_sizes(spacing: tuple[float, ...]) -> np.ndarray:
    """Return the size of the surface in a block by its code: area in mm^2, or length in mm."""
    ndim = len(spacing)
    sizes = np.zeros(2 ** (2**ndim))
    for code in range(1, len(sizes) - 1):
        bits = [code >> bit & 1 for bit in range(2**ndim)]
        block = np.reshape(bits, (2,) * ndim).astype(np.float32)
        sizes[code] = _area(block, spacing) if ndim == 3 else _length(block, spacing)
    # Voxels that meet only diagonally can be read as joined or apart. Apart is the smaller surface;
    # taking it for the mask and for its complement makes both have the same one.
    sizes = np.minimum(sizes, sizes[::-1])
    sizes.flags.writeable = False
    return sizes


def _area(block: np.ndarray, spacing: tuple[float, ...]) -> float:
    corners, triangles, _, _ = marching_cubes(block, 0.5, spacing=spacing, method="lorensen")
    return float(mesh_surface_area(corners, triangles))


def _length(block: np.ndarray, spacing: tuple[float, ...]) -> float:
    (a, b), (c, d) = block.astype(bool)
    if a == b and c == d:
        return spacing[1]  # the contour runs along x, across the block
    if a == c and b == d:
        return spacing[0]
    cuts = 2 if a == d and b == c else 1  # diagonal neighbours: two corners are cut off
    return cuts * float(np.linalg.norm(spacing)) / 2


def _to_nearest(points: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return the distance of each point to the nearest other one; infinite if there is none.

    A tree beats the distance transform: its time follows the surface, not the volume.
    """
    if not len(points) or not len(others):
        return np.full(len(points), np.inf)
    return cKDTree(others).query(points)[0]


def _area_percentile(values: np.ndarray, areas: np.ndarray, fraction: float) -> float:
    order = np.argsort(values)
    covered = np.cumsum(areas[order]) / areas.sum()
    return float(values[order][min(np.searchsorted(covered, fraction), len(values) - 1)])
