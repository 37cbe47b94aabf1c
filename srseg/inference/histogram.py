"""Histogram matching against a stored table: no source image is needed in use.

The table holds quantiles of the source volumes' bodies, pooled, in the frame of the body. It stands
for an image with exactly these values, each equally often, and scikit-image matches against it.
"""

from __future__ import annotations

import numpy as np

NUM_QUANTILES = 1001


def quantile_table(values: np.ndarray) -> np.ndarray:
    """Return `NUM_QUANTILES` evenly spaced quantiles of `values`, rising."""
    return np.quantile(values, np.linspace(0, 1, NUM_QUANTILES))


def match_table(values: np.ndarray, body: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Return `values` (Z, Y, X) with the body's histogram matched to `table`, float32.

    Outside the body values are shifted like its lowest one, so that the map stays continuous.

    Args:
        values: one channel, in the frame of the body.
        body: (Z, Y, X) bool, not empty.
        table: of `quantile_table`.
    """
    from skimage.exposure import match_histograms  # slow to import, and of one method only

    inside = values[body]
    matched = match_histograms(inside, table)
    lowest = int(np.argmin(inside))
    result = values.astype(np.float32) + np.float32(matched[lowest] - inside[lowest])
    result[body] = matched
    return result
