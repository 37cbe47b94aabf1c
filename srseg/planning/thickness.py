"""How thick the labelled structures are: what an LR voxel must not swallow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.ndimage import find_objects


def label_groups(dataset_json: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Return the label values of every structure by name; background and ignore left out.

    A region is the union of its values.
    """
    groups = {}
    for name, values in dataset_json["labels"].items():
        values = tuple(int(v) for v in (values if isinstance(values, list | tuple) else (values,)))
        if name != "ignore" and values != (0,):
            groups[name] = values
    return groups


def structure_thickness(
    segmentation: np.ndarray, groups: Mapping[str, Sequence[int]], spacing: Sequence[float]
) -> dict[str, list[float]]:
    """Return per structure that is present its median thickness per axis in mm.

    The thickness along an axis is the median length of all runs of the structure's voxels along
    it; a ball of diameter d has 0.71 d.

    Args:
        segmentation: (Z, Y, X) label map.
        groups: label values of each structure.
        spacing: mm per axis.
    """
    segmentation = segmentation.astype(np.int32)
    boxes = find_objects(segmentation)  # of labels above 0
    found = {}
    for name, values in groups.items():
        present = [boxes[v - 1] for v in values if 0 < v <= len(boxes) and boxes[v - 1]]
        if not present:
            continue
        box = tuple(
            slice(min(b[axis].start for b in present), max(b[axis].stop for b in present))
            for axis in range(3)
        )
        mask = np.isin(segmentation[box], values)
        found[name] = [_median_run(mask, axis) * float(mm) for axis, mm in enumerate(spacing)]
    return found


def _median_run(mask: np.ndarray, axis: int) -> float:
    """Return the median length in voxels of the runs of True along an axis."""
    lines = np.moveaxis(mask, axis, -1)
    padded = np.zeros((*lines.shape[:-1], lines.shape[-1] + 2), dtype=np.int8)
    padded[..., 1:-1] = lines
    steps = np.diff(padded, axis=-1).ravel()
    return float(np.median(np.flatnonzero(steps == -1) - np.flatnonzero(steps == 1)))
