"""What one gets for nothing: the LR image brought onto the HR grid without any learning.

Both keep voxel faces where they are, as the HR grid demands: HR centres lie at the LR indices
`(i + 0.5) / scale - 0.5`. Both continue the image beyond its faces by reflection, the extension
that the degradation uses as well. (Zooms that align corner *centres*, such as
`scipy.ndimage.zoom` by default, are shifted by up to half an LR voxel and lose some dB for it.)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
from scipy import ndimage
from scipy.fft import dct, idct

from srseg.geometry.grid import checked_scale


def upsample_cubic(lr_image: np.ndarray, scale: Sequence[int]) -> np.ndarray:
    """Return the image on the grid `scale` times finer, by interpolating cubic B-splines.

    Args:
        lr_image: (..., z, y, x).
        scale: whole numbers, one for each of the last axes.

    Returns:
        (..., Z, Y, X) float32, exactly `scale` times larger.
    """
    return _upsampled(lr_image, scale, _cubic_matrix)


def upsample_sinc(lr_image: np.ndarray, scale: Sequence[int]) -> np.ndarray:
    """Return the image on the grid `scale` times finer, with its own frequencies and no others.

    Zero-padding of the DCT-II per axis: what a scanner's zero-filling displays, without wrapping
    one border into the other. Arguments and result as of `upsample_cubic`.
    """
    return _upsampled(lr_image, scale, _sinc_matrix)


BASELINES: dict[str, Callable[[np.ndarray, Sequence[int]], np.ndarray]] = {
    "cubic": upsample_cubic,
    "sinc": upsample_sinc,
}


def _upsampled(
    lr_image: np.ndarray, scale: Sequence[int], matrix_of: Callable[[int, int], np.ndarray]
) -> np.ndarray:
    scale = checked_scale(scale)
    result = np.asarray(lr_image, dtype=np.float32)
    for axis, factor in enumerate(scale, start=result.ndim - len(scale)):
        if factor > 1:
            # Separable: one product with a small matrix per axis, far faster than 64 taps a voxel.
            matrix = matrix_of(result.shape[axis], factor)
            result = np.moveaxis(np.moveaxis(result, axis, -1) @ matrix.T, -1, axis)
    return np.ascontiguousarray(result)


@lru_cache(maxsize=64)
def _cubic_matrix(size: int, factor: int) -> np.ndarray:
    """Return (factor * size, size): each column is the response to one voxel."""
    centres = (np.arange(factor * size) + 0.5) / factor - 0.5
    unit = np.eye(size)
    columns = [
        ndimage.map_coordinates(column, centres[None], order=3, mode="reflect") for column in unit
    ]
    return np.stack(columns, axis=1).astype(np.float32)


@lru_cache(maxsize=64)
def _sinc_matrix(size: int, factor: int) -> np.ndarray:
    spectrum = np.zeros((factor * size, size))
    spectrum[:size] = dct(np.eye(size), axis=0, norm="ortho")
    # The orthonormal transform of a longer signal is larger by the root of the factor.
    return (np.sqrt(factor) * idct(spectrum, axis=0, norm="ortho")).astype(np.float32)
