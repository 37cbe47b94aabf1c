"""`3d_patchfree`: the network reads the whole LR volume at once, where memory allows it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

import numpy as np

from srseg.planning import rationale
from srseg.planning.memory_model import MemoryModel

MAX_DATASET_COVERED = 0.05  # of the training voxels in one batch, as in nnU-Net

SMALLEST_BATCH = 2  # where memory allows it, as in nnU-Net


def whole_volume_patch(lr_shapes: np.ndarray, strides: Sequence[Sequence[int]]) -> tuple[int, ...]:
    """Return the smallest patch that holds every case and that the network's strides divide.

    Args:
        lr_shapes: LR voxels, one row a case.
        strides: of the network's stages, per axis.
    """
    divisors = [prod(axis) for axis in zip(*strides, strict=True)]
    largest = lr_shapes.max(axis=0)
    return tuple(int(-(-n // d) * d) for n, d in zip(largest, divisors, strict=True))


def patch_free_configuration(
    fullres: Mapping[str, Any], lr_shapes: np.ndarray, memory: MemoryModel
) -> tuple[dict[str, Any] | None, str]:
    """Return the configuration and why it is offered, or None and why it is not.

    It inherits everything but patch and batch size from `3d_fullres`, the preprocessed folder
    included.

    Args:
        fullres: the `3d_fullres` configuration.
        lr_shapes: LR voxels of every case (rows), plan order.
        memory: the memory model.
    """
    architecture = fullres["architecture"]
    patch = whole_volume_patch(lr_shapes, architecture["arch_kwargs"]["strides"])
    largest = lr_shapes.max(axis=0)
    most = memory.largest_batch(architecture, patch)
    if most < 1:
        elements = memory.elements(architecture, patch)
        return None, rationale.no_patch_free(largest, elements, memory.budget(3))
    voxels = float(np.prod(np.median(lr_shapes, axis=0))) * len(lr_shapes)
    by_cases = round(MAX_DATASET_COVERED * voxels / prod(patch))
    smallest = min(most, SMALLEST_BATCH)
    batch = max(smallest, min(most, by_cases))
    reason = rationale.patch_free(largest, patch, batch)
    configuration = {
        "inherits_from": "3d_fullres",
        "patch_size": list(patch),
        "batch_size": batch,
        "patch_free": True,
        "rationale": {
            **fullres["rationale"],
            "patch_size": reason,
            "batch_size": rationale.batch_size(batch, most, by_cases, smallest=smallest),
            "patch_free": reason,
        },
    }
    return configuration, reason
