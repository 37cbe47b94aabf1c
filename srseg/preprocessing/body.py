"""The frame in which images of different scanners are compared: each volume's own body to [-1, 1].

For domain adaptation, not for the joint network: percentiles instead of mean and deviation, which a
shift of contrast moves, and the same for a volume in other units.
"""

from __future__ import annotations

import numpy as np

from srseg.preprocessing.intensity import EPSILON, IntensityMap

_VOLUME_PERCENTILES = (0.5, 99.5)
_BODY_SHARE = 0.1  # of the volume's range: below it lies air, and noise in air
_BODY_PERCENTILES = (1.0, 99.0)


def body_mask(values: np.ndarray) -> np.ndarray:
    """Return (Z, Y, X) bool: voxels over a tenth of the range between 0.5th and 99.5th percentile.

    Where these are one value, as in a volume that is nearly all air, the whole range counts.
    Everywhere in a constant volume. Unchanged where all values are multiplied by a positive number
    or shifted.

    Args:
        values: (Z, Y, X), one channel.
    """
    low, high = np.percentile(values, _VOLUME_PERCENTILES)
    if high - low < EPSILON:
        low, high = values.min(), values.max()
    if high - low < EPSILON:
        return np.ones(values.shape, dtype=bool)
    return values > low + _BODY_SHARE * (high - low)


def body_map(values: np.ndarray) -> IntensityMap:
    """Return the map that takes the body's 1st percentile to -1 and its 99th to 1.

    Where these are one value, the volume's least and largest values stand for them.

    Args:
        values: (Z, Y, X) raw, one channel.
    """
    inside = values[body_mask(values)]
    low, high = (float(v) for v in np.percentile(inside, _BODY_PERCENTILES))
    if high - low <= EPSILON:
        low, high = float(values.min()), float(values.max())
    # a constant volume becomes 0; its slope stays 1
    slope = 2.0 / (high - low) if high - low > EPSILON else 1.0
    return IntensityMap(slope, -slope * (low + high) / 2)


def median_map(maps: list[IntensityMap]) -> IntensityMap:
    """Return the map of a domain: the medians of its volumes' ends of [-1, 1]."""
    low = float(np.median([(-1 - m.intercept) / m.slope for m in maps]))
    high = float(np.median([(1 - m.intercept) / m.slope for m in maps]))
    slope = 2.0 / (high - low)  # every slope is above 0, so the ends lie apart
    return IntensityMap(slope, -slope * (low + high) / 2)
