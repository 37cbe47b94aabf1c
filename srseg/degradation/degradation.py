"""HR images to LR images: the forward model, its adjoint and its random relatives."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from functools import cache
from typing import Any

import torch

from srseg.degradation.noise import add_noise
from srseg.degradation.operators import OPERATORS, AxisGeometry, cast_matrix
from srseg.degradation.randomised import draw_spec
from srseg.degradation.spec import AxisDegradation, DegradationSpec
from srseg.geometry.grid import checked_scale
from srseg.geometry.separable import apply_separable

logger = logging.getLogger(__name__)

_BLOCK_MEAN = (AxisDegradation("area"),) * 3


class Degradation:
    """A separable linear operator from the HR to the LR grid, plus noise where the spec has it.

    Every value depends only on the arguments: randomness comes from a generator passed in.
    Instances are small and pickle (matrices live in a bounded cache of the process).

    Attributes:
        spec: what happens along each axis.
        scale: HR voxels per LR voxel, three whole numbers in the order of the arrays.
        hr_spacing: mm per axis, in the same order.
        margin: LR voxels to add on each side of a crop (less at the border of the volume, which
            is mirrored either way) so that the degraded and trimmed crop equals the crop of the
            degraded volume: exactly for local kernels, up to an RMS of 3 % of the LR standard
            deviation for 'kspace_crop'. What `sample` draws has its own margin.

    Raises:
        ValueError: if scale or spacing are out of range, or 'identity' stands on a refined axis.
    """

    def __init__(
        self, spec: DegradationSpec, scale: Sequence[int], hr_spacing: Sequence[float]
    ) -> None:
        self.spec = spec
        self.scale = checked_scale(scale)
        self.hr_spacing = tuple(float(mm) for mm in hr_spacing)
        if len(self.scale) != 3 or len(self.hr_spacing) != 3:
            raise ValueError(
                f"a degradation has three axes, got scale {self.scale} and "
                f"HR spacing {self.hr_spacing}."
            )
        if not all(math.isfinite(mm) and mm > 0 for mm in self.hr_spacing):
            raise ValueError(f"the HR spacing must be above 0 mm, got {self.hr_spacing}.")
        self._geometry = tuple(
            AxisGeometry(s, mm) for s, mm in zip(self.scale, self.hr_spacing, strict=True)
        )
        self.margin = (0, 0, 0) if spec.paired else self._margin()
        for axis in spec.axes:
            if OPERATORS[axis.operator].aliased:
                _warn_aliased(axis.operator)

    def __repr__(self) -> str:
        """Show operators, scale and spacing."""
        names = ", ".join(axis.operator for axis in self.spec.axes)
        return f"Degradation({names}; scale={self.scale}, hr_spacing={self.hr_spacing})"

    def __call__(
        self,
        hr_image: torch.Tensor,
        *,
        zero: torch.Tensor | bool | None = None,
        generator: torch.Generator | None = None,
        zero_signal: float | torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return the LR image: `linear`, then the background rule, then noise.

        An LR voxel whose whole block of HR voxels is background gets the mean of that block, so
        that cropping to non-zero finds the same box on both grids (ringing would fill it).

        Args:
            hr_image: (..., Z, Y, X), floating point; `scale` divides its last three axes.
            zero: what is background: None for HR voxels that are exactly 0, a bool tensor of
                `hr_image`'s shape where they have another value, False for no such rule.
            generator: draws the spec's noise; without one there is no noise.
            zero_signal: the image value that stands for no signal (0 for raw images, the
                normalised 0 for normalised ones), which Rician noise must know.

        Returns:
            (..., z, y, x) of `hr_image`'s dtype and device.

        Raises:
            ValueError: if `hr_image` or `zero` does not fit, the spec is 'paired', or Rician
                noise is to be drawn without `zero_signal`.
        """
        lr_image = self.linear(hr_image)
        background = self._background(hr_image, zero)
        if background is not None:
            if zero is None:
                block_mean = torch.zeros_like(lr_image)
            else:
                block_mean = self._apply(hr_image, _BLOCK_MEAN)
            lr_image = torch.where(background, block_mean, lr_image)
        if self.spec.noise is None or generator is None:
            return lr_image
        return add_noise(
            lr_image,
            kind=self.spec.noise["kind"],
            std=self.spec.noise["std"],
            generator=generator,
            background=background,
            zero_signal=zero_signal,
        )

    def linear(self, hr_image: torch.Tensor) -> torch.Tensor:
        """Return the linear part alone: (..., Z, Y, X) -> (..., z, y, x).

        Raises:
            ValueError: if `scale` does not divide the last three axes, for integer images, or if
                the spec is 'paired'.
        """
        self._check_image(hr_image, "HR")
        shape = tuple(hr_image.shape[-3:])
        if any(n % s or n == 0 for n, s in zip(shape, self.scale, strict=True)):
            raise ValueError(
                f"scale {self.scale} does not divide the HR image's shape {shape}; pad it first."
            )
        return self._apply(hr_image, self.spec.axes)

    def adjoint(self, lr_image: torch.Tensor) -> torch.Tensor:
        """Return the adjoint of `linear`: (..., z, y, x) -> (..., Z, Y, X).

        It is the transpose, so <linear(x), y> = <x, adjoint(y)>; a constant does not stay one.

        Raises:
            ValueError: for integer images, or if the spec is 'paired'.
        """
        self._check_image(lr_image, "LR")
        return self._apply(lr_image, self.spec.axes, transpose=True)

    def sample(self, generator: torch.Generator) -> Degradation:
        """Return a degradation drawn around the nominal one (this one if it is not randomised).

        The result is fixed, so one draw can degrade several images alike.
        """
        if self.spec.randomised is None:
            return self
        drawn = draw_spec(self.spec, self.scale, self.hr_spacing, generator)
        return Degradation(drawn, self.scale, self.hr_spacing)

    def _margin(self) -> tuple[int, int, int]:
        return tuple(
            OPERATORS[axis.operator].margin(geometry, **axis.options)
            for axis, geometry in zip(self.spec.axes, self._geometry, strict=True)
        )

    def _check_image(self, image: torch.Tensor, grid: str) -> None:
        if self.spec.paired:
            raise ValueError(
                "the degradation is 'paired': LR images come from files and cannot be simulated."
            )
        if image.ndim < 3 or not image.is_floating_point():
            raise ValueError(
                f"the {grid} image must be floating point with three spatial axes last, got "
                f"{image.dtype} of shape {tuple(image.shape)}."
            )

    def _apply(
        self, image: torch.Tensor, axes: Sequence[AxisDegradation], *, transpose: bool = False
    ) -> torch.Tensor:
        # 16-bit sums would lose digits of the measurement, under autocast too
        half = image.dtype in (torch.float16, torch.bfloat16)
        dtype = torch.float32 if half else image.dtype
        matrices: list[torch.Tensor | None] = []
        for n, axis, geometry in zip(image.shape[-3:], axes, self._geometry, strict=True):
            operator = OPERATORS[axis.operator]
            if geometry.scale == 1 and operator.margin(geometry, **axis.options) == 0:
                matrices.append(None)  # nothing reaches beyond its own voxel
                continue
            n_hr = n * geometry.scale if transpose else n
            options = tuple(sorted(axis.options.items()))
            matrix = cast_matrix(
                axis.operator, n_hr, geometry, options, dtype=dtype, device=image.device
            )
            matrices.append(matrix.T if transpose else matrix)
        with torch.autocast(image.device.type, enabled=False):
            return apply_separable(image.to(dtype), matrices).to(image.dtype)

    def _background(
        self, hr_image: torch.Tensor, zero: torch.Tensor | bool | None
    ) -> torch.Tensor | None:
        """Return where whole HR blocks are background, bool (..., z, y, x); None for no rule."""
        if zero is False:
            return None
        if zero is None:
            zero = hr_image == 0
        elif not isinstance(zero, torch.Tensor) or zero.dtype != torch.bool:
            raise ValueError(f"zero must be None, False or a bool tensor, got {zero!r}.")
        elif zero.shape != hr_image.shape:
            raise ValueError(
                f"zero must have the HR image's shape {tuple(hr_image.shape)}, got "
                f"{tuple(zero.shape)}."
            )
        for i, s in enumerate(self.scale):
            if s > 1:
                dim = i - 3
                # splits the axis into (blocks, voxels of a block); later axes keep their number
                zero = zero.unflatten(dim, (-1, s)).all(dim)
        return zero


@cache
def _warn_aliased(operator: str) -> None:
    """Warn once per process."""
    logger.warning(
        "the degradation '%s' does not filter before sampling: its LR images are aliased as no "
        "scanner's are; use it only to reproduce published results.",
        operator,
    )


def degradation_from_plans(configuration_manager: Any) -> Degradation:
    """Return the degradation of a configuration, for its stored (C, Z, Y, X) arrays.

    Args:
        configuration_manager: has `degradation` (JSON, three axes), `scale_3d` and `hr_spacing`.

    Raises:
        ValueError: if the spec cannot be read, or a 2d configuration degrades across slices.
    """
    spec = DegradationSpec.from_json(configuration_manager.degradation)
    hr_spacing = tuple(configuration_manager.hr_spacing)
    if len(hr_spacing) == 2:
        if spec.axes[0].operator != "identity" and not spec.paired:
            raise ValueError(
                f"a 2d configuration keeps its slices apart, but its degradation has "
                f"'{spec.axes[0].operator}' across them; 'identity' is allowed."
            )
        hr_spacing = (1.0, *hr_spacing)  # a distance of slices that nothing reads
    return Degradation(spec, configuration_manager.scale_3d, hr_spacing)
