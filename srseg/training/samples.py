"""LR/HR/mask triplets of one patch.

`DegradedSamples` makes the LR image from the augmented HR image, `StoredSamples` takes the stored
one (real LR/HR pairs, validation). Both give the same when nothing is augmented: outside a case
its edge is repeated on either grid and nothing counts, as the predictor pads it.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn.functional import pad

from srseg.degradation.degradation import Degradation
from srseg.training.augmentation import (
    AugmentationOptions,
    IntensityAugmentation,
    LRAugmentation,
    draw_view_matrix,
)
from srseg.training.cases import Case
from srseg.training.randomness import Draws
from srseg.training.spatial import INTERPOLATION_HALO, Frame, RotationRule, View

# relative tolerance within which an interpolated voxel is still background
_BACKGROUND_TOLERANCE = 1e-5


@dataclass(frozen=True)
class Triplet:
    """One sample.

    Attributes:
        lr_image: (C, z, y, x) float32.
        hr_image: (C, Z, Y, X) float32.
        hr_seg: (1, Z, Y, X) int16.
        valid: (1, Z, Y, X) bool, where losses count.
    """

    lr_image: torch.Tensor
    hr_image: torch.Tensor
    hr_seg: torch.Tensor
    valid: torch.Tensor

    def map(self, function: Callable[[torch.Tensor], torch.Tensor]) -> Triplet:
        """Return the triplet with `function` applied to each array."""
        return Triplet(*(function(array) for array in vars(self).values()))


@dataclass(frozen=True)
class Patch:
    """The patch of a configuration, three axes each.

    Attributes:
        lr_size: LR voxels.
        scale: HR voxels per LR voxel.
        hr_spacing: mm.
    """

    lr_size: np.ndarray
    scale: np.ndarray
    hr_spacing: tuple[float, ...]

    @property
    def hr_size(self) -> np.ndarray:
        """HR voxels."""
        return self.lr_size * self.scale


class StoredSamples:
    """Samples of the stored LR and HR images."""

    def __init__(self, patch: Patch, options: AugmentationOptions) -> None:
        self._patch = patch
        self._lr_augmentation = LRAugmentation(options)

    def __call__(self, case: Case, lr_start: np.ndarray, draws: Draws) -> Triplet:
        """Return the patch of `case` that begins at an LR voxel (may be negative)."""
        patch = self._patch
        lr_shape = np.asarray(case.hr_shape) // patch.scale
        start, stop = _clipped(lr_start, lr_start + patch.lr_size, lr_shape)
        lr_image = self._lr_augmentation(_read(case.lr_image, start, stop), draws.torch)
        box = start * patch.scale, stop * patch.scale
        hr_image, hr_seg = _read(case.hr_image, *box), _read(case.hr_seg, *box)
        valid = torch.ones_like(hr_seg, dtype=torch.bool)
        if case.valid is not None:
            valid = _read(case.valid, *box).bool()
        return _padded(Triplet(lr_image, hr_image, hr_seg, valid), lr_start, start, patch)


class DegradedSamples:
    """Samples whose LR image is degraded from the augmented HR image.

    Args:
        patch: the configuration's.
        options: of the augmentation.
        rule: how far patches may be turned.
        degradation: the planned one.
    """

    def __init__(
        self,
        patch: Patch,
        options: AugmentationOptions,
        rule: RotationRule,
        degradation: Degradation,
    ) -> None:
        self._patch = patch
        self._options = options
        self._rule = rule
        self._degradation = degradation
        self._intensity = IntensityAugmentation(options)
        self._lr_augmentation = LRAugmentation(options)

    def __call__(self, case: Case, lr_start: np.ndarray, draws: Draws) -> Triplet:
        """Return the patch of `case` that begins at an LR voxel (may be negative).

        Raises:
            ValueError: for a case with a mask of voxels that count, as only real pairs have.
        """
        if case.valid is not None:
            raise ValueError(
                f"case {case.identifier} is a real LR/HR pair: its LR image cannot be simulated; "
                "use the mode 'matched'."
            )
        degradation = self._degradation
        if draws.numpy.random() < self._options.degradation_probability:
            degradation = degradation.sample(draws.torch)
        matrix = draw_view_matrix(draws.numpy, self._options, self._rule, self._patch.hr_spacing)
        make = self._straight if matrix is None else self._turned
        return make(case, lr_start, matrix=matrix, degradation=degradation, draws=draws)

    def _straight(
        self,
        case: Case,
        lr_start: np.ndarray,
        *,
        matrix: None,
        degradation: Degradation,
        draws: Draws,
    ) -> Triplet:
        """Return the patch as it lies in the case: only the case's part of it is read."""
        patch = self._patch
        lr_shape = np.asarray(case.hr_shape) // patch.scale
        start, stop = _clipped(lr_start, lr_start + patch.lr_size, lr_shape)
        margin = np.asarray(degradation.margin)
        wide_start, wide_stop = _clipped(start - margin, stop + margin, lr_shape)
        hr_wide = _read(case.hr_image, wide_start * patch.scale, wide_stop * patch.scale)
        low, size = start - wide_start, stop - start
        lr_image, hr_image = self._degrade(case, hr_wide, low, size, degradation, draws)
        hr_seg = _read(case.hr_seg, start * patch.scale, stop * patch.scale)
        valid = torch.ones_like(hr_seg, dtype=torch.bool)
        return _padded(Triplet(lr_image, hr_image, hr_seg, valid), lr_start, start, patch)

    def _turned(
        self,
        case: Case,
        lr_start: np.ndarray,
        *,
        matrix: np.ndarray,
        degradation: Degradation,
        draws: Draws,
    ) -> Triplet:
        """Return the patch turned or zoomed around its centre."""
        patch, interpolation = self._patch, self._options.interpolation
        half = (patch.hr_size - 1) / 2
        view = View(matrix, lr_start * patch.scale + half, case.hr_shape)
        below, above = self._margins(view, half, degradation)
        wide_size = (patch.lr_size + below + above) * patch.scale
        wide = Frame(view, -half - below * patch.scale, wide_size)
        start, stop = wide.source_box(INTERPOLATION_HALO[interpolation])
        hr_wide = wide.image(_read(case.hr_image, start, stop), start, interpolation)
        lr_image, hr_image = self._degrade(case, hr_wide, below, patch.lr_size, degradation, draws)
        frame = Frame(view, -half, patch.hr_size)
        start, stop = frame.source_box(halo=1)
        hr_seg = frame.labels(_read(case.hr_seg, start, stop), start)
        return Triplet(lr_image, hr_image, hr_seg, frame.inside())

    def _margins(
        self, view: View, half: np.ndarray, degradation: Degradation
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return LR voxels to add below and above: none where only the repeated edge follows."""
        lowest, highest = view.extent()
        most = np.asarray(degradation.margin)
        below = np.ceil((-half - lowest) / self._patch.scale).astype(int)
        above = np.ceil((highest - half) / self._patch.scale).astype(int)
        return np.clip(below, 0, most), np.clip(above, 0, most)

    def _degrade(
        self,
        case: Case,
        hr_wide: torch.Tensor,
        low: np.ndarray,
        size: np.ndarray,
        degradation: Degradation,
        draws: Draws,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the LR and HR image of the inner part of `hr_wide`, which is written into.

        Args:
            case: gives the value of the background and the clipping.
            hr_wide: (C, ...) with a margin.
            low: LR voxels below the inner part.
            size: of the inner part in LR voxels.
            degradation: of this sample.
            draws: of this sample.
        """
        background = case.background
        tolerance = _BACKGROUND_TOLERANCE * background.abs().clamp(min=1)
        zero = (hr_wide - background).abs_() <= tolerance
        hr_wide = self._intensity(hr_wide, background, draws.torch)
        lr_image = degradation(
            hr_wide,
            zero=zero if zero.any() else False,
            generator=draws.torch,
            zero_signal=background,
        )
        scale = self._patch.scale
        lr_image = lr_image[_slices(low, low + size)].contiguous()
        hr_image = hr_wide[_slices(low * scale, (low + size) * scale)]
        for channel, bounds in zip(lr_image, case.clip, strict=True):
            if bounds is not None:
                channel.clamp_(*bounds)
        return self._lr_augmentation(lr_image, draws.torch), hr_image


def flipped_and_turned(
    triplet: Triplet,
    generator: np.random.Generator,
    *,
    options: AugmentationOptions,
    mirror_axes: Sequence[int],
    alike_planes: Sequence[tuple[int, int]],
) -> Triplet:
    """Return the triplet mirrored, and turned by quarters, alike on both grids.

    Args:
        triplet: to change.
        generator: gives the same number of draws in any case.
        options: `flip_probability` and `rotate90_probability`.
        mirror_axes: spatial axes (of three) that may be mirrored.
        alike_planes: pairs of axes a quarter turn maps onto each other.
    """
    flips = generator.random(3) < options.flip_probability
    turn, plane, quarters = generator.random(), generator.random(), generator.integers(1, 4)
    axes = [axis + 1 for axis in mirror_axes if flips[axis]]
    if axes:
        triplet = triplet.map(lambda array: array.flip(axes))
    if alike_planes and turn < options.rotate90_probability:
        a, b = alike_planes[int(plane * len(alike_planes))]
        triplet = triplet.map(lambda array: torch.rot90(array, int(quarters), (a + 1, b + 1)))
    return triplet


def alike_planes(patch: Patch, degradation: Degradation | None) -> list[tuple[int, int]]:
    """Return the planes in which a quarter turn changes neither patch, grid nor degradation."""
    operators = [None] * 3 if degradation is None else degradation.spec.axes
    nature = [
        (int(n), int(s), round(float(mm), 3), operator)
        for n, s, mm, operator in zip(
            patch.lr_size, patch.scale, patch.hr_spacing, operators, strict=True
        )
    ]
    pairs = itertools.combinations(range(3), 2)
    return [(a, b) for a, b in pairs if nature[a] == nature[b]]


def _clipped(
    start: np.ndarray, stop: np.ndarray, shape: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    return np.maximum(start, 0), np.minimum(stop, shape)


def _slices(start: Sequence[int], stop: Sequence[int]) -> tuple[slice, ...]:
    return (slice(None), *(slice(int(a), int(b)) for a, b in zip(start, stop, strict=True)))


def _read(array: Any, start: np.ndarray, stop: np.ndarray) -> torch.Tensor:
    """Return a box of a (C, ...) array in memory of its own: float32, int16 or bool."""
    box = np.array(array[_slices(start, stop)])
    if box.dtype == bool:
        return torch.from_numpy(box)
    dtype = np.float32 if np.issubdtype(box.dtype, np.floating) else np.int16
    return torch.from_numpy(box.astype(dtype, copy=False))


def _padded(triplet: Triplet, lr_start: np.ndarray, start: np.ndarray, patch: Patch) -> Triplet:
    """Return the triplet padded to the patch: images by their edge, labels by background.

    Args:
        triplet: the part of the patch that lies in the case.
        lr_start: first LR voxel of the patch.
        start: first LR voxel of the part.
        patch: gives the size to reach.
    """
    below = start - lr_start
    above = patch.lr_size - below - np.asarray(triplet.lr_image.shape[1:])
    if not (below.any() or above.any()):
        return triplet
    hr_below, hr_above = below * patch.scale, above * patch.scale
    return Triplet(
        _padded_by_edge(triplet.lr_image, below, above),
        _padded_by_edge(triplet.hr_image, hr_below, hr_above),
        pad(triplet.hr_seg, _torch_padding(hr_below, hr_above)),
        pad(triplet.valid, _torch_padding(hr_below, hr_above)),
    )


def _padded_by_edge(image: torch.Tensor, below: np.ndarray, above: np.ndarray) -> torch.Tensor:
    return pad(image[None], _torch_padding(below, above), mode="replicate")[0]


def _torch_padding(below: np.ndarray, above: np.ndarray) -> list[int]:
    """Return torch's order: the last axis first, below before above."""
    pairs = zip(below[::-1], above[::-1], strict=True)
    return [int(n) for pair in pairs for n in pair]
