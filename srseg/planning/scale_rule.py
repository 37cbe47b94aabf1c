"""How many times finer the HR grid is: one small rule per reason.

All values are per axis in the reader's (Z, Y, X) order.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

Scale = tuple[int, int, int]

NO_SPACING = 999.0  # what nnU-Net's 2-D readers give as the spacing between slices
START = 2
LARGEST = 4
FINE_RATIO = 2.0  # to the finest spacing
MIN_THICKNESS = 2.0  # LR voxels across the thinnest structure


@dataclass(frozen=True)
class ScaleChoice:
    """A scale and, in words, why."""

    scale: Scale
    reason: str


def choose_scale(
    hr_spacing: Sequence[float],
    median_shape: Sequence[int],
    thickness_mm: Mapping[str, Sequence[float | None]],
    fits: Callable[[Scale], bool],
) -> ScaleChoice:
    """Return the scale for images without real LR partners and without a user's wish.

    Args:
        hr_spacing: mm of the HR grid.
        median_shape: voxels of the median case on the HR grid.
        thickness_mm: median thickness of each structure.
        fits: whether the median LR volume of a scale fits the memory target as a whole.
    """
    started = start_scale(hr_spacing, median_shape)
    reasons = [
        f"{START} along axes whose spacing is at most {FINE_RATIO:g} times the finest "
        f"({in_mm(hr_spacing)}), 1 elsewhere"
    ]
    raised = raise_until_it_fits(started, hr_spacing, fits)
    if raised != started:
        reasons.append(
            f"raised from {_times(started)} to {_times(raised)} so that the median LR volume fits "
            "the memory target as a whole"
        )
    lowered, thinnest = lower_for_thin_structures(raised, hr_spacing, thickness_mm)
    if lowered != raised:
        reasons.append(
            f"lowered from {_times(raised)} to {_times(lowered)} so that '{thinnest}' stays "
            f"{MIN_THICKNESS:g} LR voxels thick"
        )
    kept = keep_one_refined(lowered, raised, hr_spacing, thickness_mm)
    if kept != lowered:
        reasons.append(
            f"then {_times(kept)}, since something has to be refined; -scale 1 1 1 trains without"
        )
    return ScaleChoice(kept, "; ".join(reasons) + ".")


def start_scale(hr_spacing: Sequence[float], median_shape: Sequence[int]) -> Scale:
    """Return 2 on every axis whose spacing is at most twice the finest, 1 elsewhere.

    The HR truth of a coarse axis (the slices of a cine) holds no fine detail to learn from, and a
    single slice cannot be refined at all.
    """
    used = [mm for mm, n in zip(hr_spacing, median_shape, strict=True) if n > 1]
    finest = min(used or hr_spacing)
    return tuple(
        START if n > 1 and mm <= FINE_RATIO * finest * (1 + 1e-6) else 1
        for mm, n in zip(hr_spacing, median_shape, strict=True)
    )


def raise_until_it_fits(
    scale: Scale, hr_spacing: Sequence[float], fits: Callable[[Scale], bool]
) -> Scale:
    """Return `scale` with refined axes raised one by one, to 4 at most, until `fits`.

    A volume seen as a whole needs no tiles and gives the network its full context. The axis with
    the finest LR spacing is raised first: it loses least, and LR voxels stay near cubic. Where not
    even the largest scale fits (the HR stage is as large as before), nothing is raised: it would
    cost detail and gain nothing.
    """
    can_rise = [axis for axis, s in enumerate(scale) if s > 1]
    largest = tuple(LARGEST if axis in can_rise else s for axis, s in enumerate(scale))
    if fits(scale) or not can_rise or not fits(largest):
        return scale
    raised = list(scale)
    while not fits(tuple(raised)):
        below = [axis for axis in can_rise if raised[axis] < LARGEST]
        raised[min(below, key=lambda axis: raised[axis] * hr_spacing[axis])] += 1
    return tuple(raised)


def lower_for_thin_structures(
    scale: Scale,
    hr_spacing: Sequence[float],
    thickness_mm: Mapping[str, Sequence[float | None]],
) -> tuple[Scale, str | None]:
    """Return `scale` lowered until every structure is 2 LR voxels thick, and which asked for it.

    What is thinner than two LR voxels is hardly seen by the network. Of several structures the
    thinnest is named.
    """
    lowered, culprit, least = list(scale), None, np.inf
    for name, thickness in thickness_mm.items():
        for axis, mm in enumerate(thickness):
            if mm is None:
                continue
            most = max(1, int(mm / (MIN_THICKNESS * hr_spacing[axis]) + 1e-6))
            if most < scale[axis]:
                lowered[axis] = min(lowered[axis], most)
                if mm / hr_spacing[axis] < least:
                    culprit, least = name, mm / hr_spacing[axis]
    return tuple(lowered), culprit


def keep_one_refined(
    scale: Scale,
    before: Scale,
    hr_spacing: Sequence[float],
    thickness_mm: Mapping[str, Sequence[float | None]],
) -> Scale:
    """Return `scale`, or if thin structures left it all ones, 2 on the axis with most room.

    Joint training without refinement is a user's choice (`-scale 1 1 1`), never the rule's.
    """
    candidates = [axis for axis, s in enumerate(before) if s > 1]
    if max(scale) > 1 or not candidates:
        return scale

    def room(axis: int) -> float:
        mm = [t[axis] for t in thickness_mm.values() if t[axis] is not None]
        return min(mm, default=np.inf) / hr_spacing[axis]

    best = max(candidates, key=room)
    return tuple(START if axis == best else 1 for axis in range(3))


def scale_of_pairs(
    hr_spacings: Sequence[Sequence[float]], lr_spacings: Sequence[Sequence[float]]
) -> ScaleChoice:
    """Return the scale of real LR/HR pairs: the rounded median ratio of their spacings.

    All ones is valid: the pair then differs in quality alone.
    """
    ratios = np.median(np.divide(lr_spacings, hr_spacings), axis=0)
    scale = tuple(max(1, round(float(ratio))) for ratio in ratios)
    return ScaleChoice(
        scale,
        f"the real LR/HR pairs' spacings have the median ratio {_times(ratios)} (Z, Y, X).",
    )


def scale_of_lr_spacing(
    lr_spacing: Sequence[float], hr_spacing: Sequence[float]
) -> tuple[ScaleChoice, tuple[float, ...]]:
    """Return the scale max(1, round(lr / hr)) and the HR spacing lr / scale that belongs to it."""
    scale = tuple(max(1, round(lr / hr)) for lr, hr in zip(lr_spacing, hr_spacing, strict=True))
    reason = (
        f"-lr_spacing {in_mm(lr_spacing)} over the images' {in_mm(hr_spacing)}, rounded, at "
        "least 1."
    )
    new_hr_spacing = tuple(lr / s for lr, s in zip(lr_spacing, scale, strict=True))
    return ScaleChoice(scale, reason), new_hr_spacing


def in_mm(values: Sequence[float]) -> str:
    """Return spacings in words; the one that a 2-D image does not have is left out."""
    known = [mm for mm in values if mm < NO_SPACING] or values
    return " x ".join(f"{float(mm):.4g}" for mm in known) + " mm"


def _times(values: Sequence[float]) -> str:
    return " x ".join(f"{float(v):.3g}" for v in values)
