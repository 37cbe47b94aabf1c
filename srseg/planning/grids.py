"""Which HR grid a dataset gets, how much coarser the LR grid is, and how large its cases are.

All values are per axis in the reader's (Z, Y, X) order unless said otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from nnunetv2.configuration import ANISO_THRESHOLD

from srseg.planning.scale_rule import (
    NO_SPACING,
    Scale,
    ScaleChoice,
    choose_scale,
    scale_of_lr_spacing,
    scale_of_pairs,
)
from srseg.preprocessing.lr_case import KEPT_RATIO

_EQUAL_SPACING = 0.99


@dataclass(frozen=True)
class Wishes:
    """What a user asked for, in the reader's order; None leaves it to the rules.

    Attributes:
        scale: whole numbers.
        lr_spacing: mm; scale and HR grid follow.
        hr_spacing: mm of the HR grid.

    Raises:
        ValueError: for a value that is out of range, or two that contradict each other.
    """

    scale: Sequence[int] | None = None
    lr_spacing: Sequence[float] | None = None
    hr_spacing: Sequence[float] | None = None

    def __post_init__(self) -> None:
        if self.scale is not None and not (
            len(self.scale) == 3 and all(s == int(s) and s >= 1 for s in self.scale)
        ):
            raise ValueError(
                f"-scale takes three whole numbers >= 1 (Z Y X), got {_listed(self.scale)}."
            )
        for flag, value in (
            ("-lr_spacing", self.lr_spacing),
            ("-overwrite_target_spacing", self.hr_spacing),
        ):
            if value is not None and not (
                len(value) == 3 and all(math.isfinite(mm) and mm > 0 for mm in value)
            ):
                raise ValueError(
                    f"{flag} takes three spacings in mm above 0 (Z Y X), got {_listed(value)}."
                )
        if self.lr_spacing is not None and self.scale is not None:
            raise ValueError("-lr_spacing decides the scale, so give it or -scale, not both.")
        if self.lr_spacing is not None and self.hr_spacing is not None:
            raise ValueError(
                "-lr_spacing decides the HR grid, so give it or -overwrite_target_spacing, not "
                "both."
            )


@dataclass(frozen=True)
class Cases:
    """The dataset's cases on their own HR grids, after cropping to what is not zero.

    Attributes:
        names: of the cases.
        spacings: mm, one row a case.
        shapes: voxels, one row a case.
    """

    names: tuple[str, ...]
    spacings: np.ndarray
    shapes: np.ndarray

    @classmethod
    def of_fingerprint(cls, fingerprint: Mapping[str, Any]) -> Cases:
        """Return the cases whose LR images are to be simulated."""
        return cls(
            tuple(fingerprint["srseg"]["cases"]),
            np.array(fingerprint["spacings"], dtype=float),
            np.array(fingerprint["shapes_after_crop"], dtype=int),
        )

    @classmethod
    def of_pairs(cls, pairs: Mapping[str, Mapping[str, Any]], scale: Scale) -> Cases:
        """Return the cases of real pairs: their HR grid is the LR grid refined."""
        return cls(
            tuple(pairs),
            np.array([pair["spacing"] for pair in pairs.values()]) / scale,
            np.array([pair["shape_after_crop"] for pair in pairs.values()]) * scale,
        )

    def hr_shapes(self, hr_spacing: Sequence[float]) -> np.ndarray:
        """Return the shapes resampled to a spacing, one row a case."""
        return np.round(self.shapes * self.spacings / hr_spacing).astype(int)

    def lr_shapes(
        self, hr_spacing: Sequence[float], scale: Sequence[int], native_axes: Sequence[int] = ()
    ) -> np.ndarray:
        """Return the LR shapes that preprocessing will give, one row a case."""
        padded = np.ceil(self.shapes / scale)  # in native LR voxels
        zoom = self.resampled_spacings(hr_spacing, native_axes) / hr_spacing
        return np.maximum(np.round(padded * zoom), 1).astype(int)

    def resampled_spacings(
        self, hr_spacing: Sequence[float], native_axes: Sequence[int]
    ) -> np.ndarray:
        """Return the spacings, the planned one where a case keeps its own slices."""
        spacings = self.spacings.copy()
        for axis in native_axes:
            zoom = spacings[:, axis] / hr_spacing[axis]
            kept = (zoom >= 1 / KEPT_RATIO) & (zoom <= KEPT_RATIO)
            spacings[kept, axis] = hr_spacing[axis]
        return spacings

    def check_scale(self, scale: Scale) -> None:
        """Refuse a scale with an image smaller than it.

        Raises:
            ValueError: naming the first such case.
        """
        too_small = (self.shapes < scale).any(axis=1)
        for i in np.flatnonzero(too_small)[:1]:
            name = self.names[i] if i < len(self.names) else f"number {i + 1}"
            raise ValueError(
                f"case {name}: the image of {_times(self.shapes[i])} voxels (Z, Y, X) is smaller "
                f"than the scale {_times(scale)}; choose another with -scale."
            )


@dataclass(frozen=True)
class PlannedGrids:
    """The two grids of a dataset.

    Attributes:
        hr_spacing: mm of the HR grid.
        choice: the scale and why.
        cases: what the plans are made for.
        transpose: the reader's axis of every axis of the plans; the slice axis comes first.
        native_axes: along which cases keep their own slices.
    """

    hr_spacing: tuple[float, float, float]
    choice: ScaleChoice
    cases: Cases
    transpose: tuple[int, int, int]
    native_axes: tuple[int, ...] = ()

    @property
    def planned_scale(self) -> Scale:
        """The scale in plan order."""
        return tuple(self.choice.scale[axis] for axis in self.transpose)

    @property
    def planned_native_axes(self) -> list[int]:
        """`native_axes` in plan order."""
        return [i for i, axis in enumerate(self.transpose) if axis in self.native_axes]

    @property
    def planned_lr_spacing(self) -> tuple[float, ...]:
        """Spacing of the LR grid in mm, plan order."""
        return tuple(self.hr_spacing[i] * self.choice.scale[i] for i in self.transpose)

    @property
    def planned_lr_shapes(self) -> np.ndarray:
        """LR voxels of every case (rows) in plan order."""
        shapes = self.cases.lr_shapes(self.hr_spacing, self.choice.scale, self.native_axes)
        return shapes[:, list(self.transpose)]

    @property
    def planned_lr_median(self) -> tuple[int, ...]:
        """LR voxels of the median case, plan order."""
        return tuple(int(n) for n in np.ceil(np.median(self.planned_lr_shapes, axis=0)))


def plan_grids(
    fingerprint: Mapping[str, Any],
    wishes: Wishes,
    *,
    target_spacing: Callable[[Cases], Sequence[float]],
    fits: Callable[[np.ndarray, np.ndarray, Scale], bool],
    suppress_transpose: bool = False,
) -> PlannedGrids:
    """Return the grids of a dataset: real pairs decide, else the user, else the rules.

    Args:
        fingerprint: with the `srseg` block.
        wishes: of the user.
        target_spacing: nnU-Net's rule for the HR spacing.
        fits: of the LR spacing, the LR shape and the scale: whether one pass fits the memory.
        suppress_transpose: keep the reader's axis order.

    Raises:
        ValueError: if a wish contradicts real pairs, or a case is smaller than the scale.
    """
    cases = Cases.of_fingerprint(fingerprint)
    block = fingerprint["srseg"]
    if block["paired"]:
        choice = _pairs_decide(block, wishes)
        cases = Cases.of_pairs({c: b["lr"] for c, b in block["cases"].items()}, choice.scale)
        hr_spacing = tuple(target_spacing(cases))
    else:
        hr_spacing = tuple(target_spacing(cases))
        if wishes.lr_spacing is not None:
            choice, hr_spacing = scale_of_lr_spacing(wishes.lr_spacing, hr_spacing)
        elif wishes.scale is not None:
            choice = ScaleChoice(tuple(int(s) for s in wishes.scale), "asked for by -scale.")
        else:

            def fits_as_a_whole(scale: Scale) -> bool:
                median = np.median(cases.lr_shapes(hr_spacing, scale), axis=0)
                return fits(np.multiply(hr_spacing, scale), np.ceil(median).astype(int), scale)

            choice = choose_scale(
                hr_spacing,
                np.median(cases.hr_shapes(hr_spacing), axis=0),
                block["structure_thickness_mm"],
                fits_as_a_whole,
            )
        cases.check_scale(choice.scale)
    hr_spacing = tuple(float(mm) for mm in hr_spacing)
    native_axes: tuple[int, ...] = ()
    if wishes.lr_spacing is None and wishes.hr_spacing is None:
        hr_spacing, native_axes = keep_slices(hr_spacing, choice.scale, cases)
    order = (0, 1, 2) if suppress_transpose else slice_axis_first(hr_spacing, choice.scale)
    return PlannedGrids(hr_spacing, choice, cases, order, native_axes)


def keep_slices(
    hr_spacing: tuple[float, ...], scale: Scale, cases: Cases
) -> tuple[tuple[float, ...], tuple[int, ...]]:
    """Return the HR spacing, with the median where slices are kept, and the axes of such slices.

    Along an axis that is not refined, of slices so far apart that nnU-Net would treat it apart too
    (three times the other spacings), interpolated slices hold nothing that was measured: an SR
    image made of them loses what it gained on the way back to the image's own slices. Every case
    then keeps its own.

    Args:
        hr_spacing: mm, by nnU-Net's rule, which takes the finest tenth along such an axis.
        scale: refinement per axis.
        cases: of the dataset.
    """
    median_mm = np.median(cases.spacings, axis=0)
    spacing, kept = list(hr_spacing), []
    for axis in range(3):
        others = max(median_mm[i] for i in range(3) if i != axis)
        far_apart = ANISO_THRESHOLD * others <= median_mm[axis] < NO_SPACING
        if scale[axis] == 1 and far_apart and cases.shapes[:, axis].max() > 1:
            spacing[axis] = float(median_mm[axis])
            kept.append(axis)
    return tuple(spacing), tuple(kept)


def slice_axis_first(hr_spacing: Sequence[float], scale: Sequence[int]) -> tuple[int, int, int]:
    """Return the axis order of the plans: the slice axis, then the others as they are.

    The slice axis is that with the largest HR spacing, as in nnU-Net; among equal ones (within
    1 %) that with the largest scale, then the first. The degradation takes the same axis for the
    through-plane one.
    """
    coarsest = max(hr_spacing)
    equal = [i for i, mm in enumerate(hr_spacing) if mm >= _EQUAL_SPACING * coarsest]
    first = max(equal, key=lambda axis: scale[axis])
    return first, *(axis for axis in range(3) if axis != first)


def _pairs_decide(block: Mapping[str, Any], wishes: Wishes) -> ScaleChoice:
    pairs = [case["lr"] for case in block["cases"].values()]
    choice = scale_of_pairs(
        [pair["hr_spacing_along_axes"] for pair in pairs], [pair["spacing"] for pair in pairs]
    )
    if wishes.scale is not None or wishes.lr_spacing is not None:
        raise ValueError(
            f"the dataset has real LR images (imagesLrTr), which decide the scale "
            f"{_times(choice.scale)}; -scale and -lr_spacing are for simulated ones."
        )
    return choice


def _times(values: Sequence[float]) -> str:
    return "x".join(f"{float(v):.4g}" for v in values)


def _listed(values: Sequence[float]) -> str:
    return " ".join(f"{float(v):g}" for v in values)
