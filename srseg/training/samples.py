"""LR/HR/mask triplets of one patch.

`DegradedSamples` makes the LR image from the augmented HR image, `StoredSamples` takes the stored
one (real LR/HR pairs, validation). Both give the same when nothing is augmented: outside a case
its edge is repeated on either grid and nothing counts, as the predictor pads it.
"""

from __future__ import annotations

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

# relative difference within which a resampled voxel is still background
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


@dataclass(frozen=True)
class _Surroundings:
    """What the degradation of a patch needs: the HR image with a margin.

    Attributes:
        hr_image: (C, ...), may be written into.
        zero: its background, or False where there is none.
        low: LR voxels below the patch.
        size: LR voxels of the patch.
    """

    hr_image: torch.Tensor
    zero: torch.Tensor | bool
    low: np.ndarray
    size: np.ndarray


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
        self._intensity = IntensityAugmentation(options, patch.hr_spacing)
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
        if matrix is None:
            return self._straight(case, lr_start, degradation, draws)
        centre = lr_start * self._patch.scale + (self._patch.hr_size - 1) / 2
        return self._turned(case, View(matrix, centre, case.hr_shape), degradation, draws)

    def _straight(
        self, case: Case, lr_start: np.ndarray, degradation: Degradation, draws: Draws
    ) -> Triplet:
        """Return the patch as it lies in the case: only the case's part of it is read."""
        patch = self._patch
        lr_shape = np.asarray(case.hr_shape) // patch.scale
        start, stop = _clipped(lr_start, lr_start + patch.lr_size, lr_shape)
        margin = np.asarray(degradation.margin)
        beyond = case.cut * margin[:, None]
        wide_start = np.maximum(start - margin, -beyond[:, 0])
        wide_stop = np.minimum(stop + margin, lr_shape + beyond[:, 1])
        hr_wide = _read_beyond(case, wide_start * patch.scale, wide_stop * patch.scale)
        zero = _background(hr_wide, case.background)
        wide = _Surroundings(hr_wide, zero, low=start - wide_start, size=stop - start)
        lr_image, hr_image = self._degrade(case, wide, degradation, draws)
        hr_seg = _read(case.hr_seg, start * patch.scale, stop * patch.scale)
        valid = torch.ones_like(hr_seg, dtype=torch.bool)
        return _padded(Triplet(lr_image, hr_image, hr_seg, valid), lr_start, start, patch)

    def _turned(self, case: Case, view: View, degradation: Degradation, draws: Draws) -> Triplet:
        """Return the patch turned or zoomed around its centre."""
        patch, interpolation = self._patch, self._options.interpolation
        half = (patch.hr_size - 1) / 2
        # beyond a cut face lies background: as many voxels of it as the interpolation reads, for
        # then the repeated edge is background too
        beyond = case.cut * (INTERPOLATION_HALO[interpolation] + 1)
        whole = View(
            view.matrix, view.centre + beyond[:, 0], tuple(case.hr_shape + beyond.sum(axis=1))
        )
        below, above = self._margins(whole, half, degradation)
        wide_size = (patch.lr_size + below + above) * patch.scale
        frame = Frame(whole, -half - below * patch.scale, wide_size)
        start, stop = frame.source_box(INTERPOLATION_HALO[interpolation])
        region = _read_beyond(case, start - beyond[:, 0], stop - beyond[:, 0])
        hr_wide = frame.image(region, start, interpolation)
        zero = _background(region, case.background)
        if zero is not False:
            # background is what no other voxel reaches linearly; better kernels ring into it
            zero = frame.image((~zero).float(), start, "linear") <= _BACKGROUND_TOLERANCE
            hr_wide = torch.where(zero, case.background, hr_wide)
        wide = _Surroundings(hr_wide, zero, low=below, size=patch.lr_size)
        lr_image, hr_image = self._degrade(case, wide, degradation, draws)
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
        self, case: Case, wide: _Surroundings, degradation: Degradation, draws: Draws
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the LR and the HR image of the patch, their intensities changed alike."""
        hr_wide = self._intensity(wide.hr_image, case.background, draws.torch)
        lr_image = degradation(
            hr_wide, zero=wide.zero, generator=draws.torch, zero_signal=case.background
        )
        low, size = wide.low, wide.size
        scale = self._patch.scale
        lr_image = lr_image[_slices(low, low + size)].contiguous()
        hr_image = hr_wide[_slices(low * scale, (low + size) * scale)]
        return self._lr_augmentation(lr_image, draws.torch), hr_image


def _background(hr_image: torch.Tensor, background: torch.Tensor) -> torch.Tensor | bool:
    """Return which voxels are raw 0, False where none is."""
    tolerance = _BACKGROUND_TOLERANCE * background.abs().clamp(min=1)
    zero = (hr_image - background).abs_() <= tolerance
    return zero if zero.any() else False


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


def _read_beyond(case: Case, start: np.ndarray, stop: np.ndarray) -> torch.Tensor:
    """Return a box of the HR image, with background where it reaches beyond the case."""
    low, high = _clipped(start, stop, np.asarray(case.hr_shape))
    inside = _read(case.hr_image, low, high)
    if np.array_equal(low, start) and np.array_equal(high, stop):
        return inside
    image = case.background.expand(-1, *(int(n) for n in stop - start)).clone()
    image[_slices(low - start, high - start)] = inside
    return image


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
