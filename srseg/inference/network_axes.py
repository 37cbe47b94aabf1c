"""From a scan's own voxels to the padded grid that a network sees, and back, face to face."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from srseg.plans.managers import SRSegPlansManager


@dataclass(frozen=True)
class NetworkAxes:
    """How the voxels of a scan lie on the network's padded HR grid, axis by axis in plan order.

    Attributes:
        start: first native voxel of the crop.
        ratio: LR voxels per native voxel; the faces of both grids coincide at the crop's border.
        below: LR voxels of padding.
        scale: HR voxels per LR voxel.
        plans_manager: for the order of the axes.
    """

    start: np.ndarray
    ratio: np.ndarray
    below: np.ndarray
    scale: np.ndarray
    plans_manager: SRSegPlansManager

    @classmethod
    def of(
        cls,
        properties: Mapping[str, Any],
        plans_manager: SRSegPlansManager,
        box: Sequence[slice],
        scale: Sequence[int],
    ) -> NetworkAxes:
        """Return the axes of a preprocessed case.

        Args:
            properties: of the preprocessor.
            plans_manager: for the order of the axes.
            box: where its LR image lies, in HR voxels of the padded grid.
            scale: HR voxels per LR voxel, in plan order.
        """
        scale = np.asarray(scale, float)
        cropped = properties["shape_after_cropping_and_before_resampling"]
        arrays = (
            [start for start, _ in properties["bbox_used_for_cropping"]],
            np.asarray(properties["srseg"]["lr_shape"], float) / np.asarray(cropped, float),
            [axis.start for axis in box] / scale,
            scale,
        )
        return cls(*(np.reshape(a, (3, 1, 1, 1)).astype(float) for a in arrays), plans_manager)

    def network(self, index: np.ndarray) -> np.ndarray:
        """Return HR positions (3, ...) in plan order of native indices (3, ...)."""
        planned = np.stack(self.plans_manager.planned(index))
        lr_face = (planned - self.start + 0.5) * self.ratio + self.below
        return lr_face * self.scale - 0.5

    def native(self, position: np.ndarray) -> np.ndarray:
        """Return native indices (3, ...) of HR positions: the inverse of `network`."""
        lr_face = (position + 0.5) / self.scale - self.below
        return np.stack(self.plans_manager.native(lr_face / self.ratio - 0.5 + self.start))
