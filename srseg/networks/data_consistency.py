"""The measurement inside a network: how far an HR image is from the LR image it must explain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

import numpy as np
import torch

from srseg.degradation.degradation import Degradation
from srseg.degradation.operators import AxisGeometry, operator_matrix
from srseg.degradation.spec import AxisDegradation, DegradationSpec

_PROBE_VOXELS = 16  # LR voxels; an operator's norm does not depend on how many there are


class DataConsistency:
    """The plans' degradation A and its adjoint A^T for 2-D and 3-D batches, with step size 1.

    Plans name a degradation per axis; its linear part is used, without what training draws around
    it and without noise. Real pairs name none: their LR voxels are taken for means ("area").

    A^T A is about `1 / prod(scale)` small, since A averages. It is divided by its norm ||A||^2
    here, so that steps below 2 converge whatever the operator and the scale.

    Args:
        degradation: the plans' JSON for three axes, or None for "area".
        scale: refinement per axis of the network, 2 or 3; a 2-D network uses the last two axes of
            the degradation.
        hr_spacing: mm per axis, or the last ones of them; needed with a degradation.

    Raises:
        ValueError: if the degradation cannot be read or its spacing is missing.
    """

    def __init__(
        self,
        degradation: Mapping[str, Any] | None,
        scale: Sequence[int],
        hr_spacing: Sequence[float] | None,
    ) -> None:
        self._flat = len(scale) == 2
        spec = None if degradation is None else DegradationSpec.from_json(degradation)
        if spec is None or spec.paired:
            axes, spacing = (AxisDegradation("area"),) * 3, [1.0] * len(scale)  # needs no mm
        elif hr_spacing is None or len(hr_spacing) < len(scale):
            raise ValueError(
                f"a degradation needs the hr_spacing of {len(scale)} axes in mm, got {hr_spacing}."
            )
        else:
            axes, spacing = spec.axes, list(hr_spacing)[-len(scale) :]
        if self._flat:  # as a volume of one slice
            axes = (AxisDegradation("identity"), *axes[1:])
            scale, spacing = (1, *scale), [1.0, *spacing]
        self._operator = Degradation(DegradationSpec(tuple(axes)), scale, spacing)
        self.squared_norm = prod(
            _norm(axis, AxisGeometry(factor, float(mm))) ** 2
            for axis, factor, mm in zip(axes, self._operator.scale, spacing, strict=True)
        )

    def degrade(self, hr_image: torch.Tensor) -> torch.Tensor:
        """Return A x, (B, C, Z, Y, X) -> (B, C, z, y, x), or without Z."""
        if self._flat:
            return self._operator.linear(hr_image.unsqueeze(-3)).squeeze(-3)
        return self._operator.linear(hr_image)

    def adjoint(self, lr_image: torch.Tensor) -> torch.Tensor:
        """Return A^T y, (B, C, z, y, x) -> (B, C, Z, Y, X), or without Z."""
        if self._flat:
            return self._operator.adjoint(lr_image.unsqueeze(-3)).squeeze(-3)
        return self._operator.adjoint(lr_image)

    @torch.compiler.disable  # dense matrices, cached per shape outside the graph
    def gradient(self, hr_image: torch.Tensor, lr_image: torch.Tensor) -> torch.Tensor:
        """Return A^T (A x - y) / ||A||^2; against it, steps below 2 never move x from y."""
        return self.adjoint(self.degrade(hr_image) - lr_image) / self.squared_norm


def _norm(axis: AxisDegradation, geometry: AxisGeometry) -> float:
    """Return the largest singular value of the operator along one axis."""
    options = tuple(sorted(axis.options.items()))
    matrix = operator_matrix(axis.operator, _PROBE_VOXELS * geometry.scale, geometry, options)
    return float(np.linalg.norm(matrix.numpy(), 2))
