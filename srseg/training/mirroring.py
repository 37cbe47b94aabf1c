"""Flips and quarter turns: alike on both grids, without interpolation.

They come last, since flips commute with every degradation (all are centred) and quarter turns
with one that is alike on both axes.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import torch

from srseg.degradation.degradation import Degradation
from srseg.training.augmentation import AugmentationOptions
from srseg.training.samples import Patch, Triplet


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
    if degradation is None:
        return []  # the spacing is not known either
    nature = [
        (int(n), int(s), round(float(mm), 3), operator)
        for n, s, mm, operator in zip(
            patch.lr_size, patch.scale, patch.hr_spacing, degradation.spec.axes, strict=True
        )
    ]
    pairs = itertools.combinations(range(3), 2)
    return [(a, b) for a, b in pairs if nature[a] == nature[b]]
