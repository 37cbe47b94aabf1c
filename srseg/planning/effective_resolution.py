"""How fine an image really is along each axis, whatever its header says.

Interpolated, zero-filled or duplicated slices add voxels, not detail. As targets of
super-resolution they would teach blur, so the fingerprint looks at the power spectrum per axis.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.fft import dct
from scipy.ndimage import uniform_filter1d

MIN_SAMPLES = 16  # along an axis; fewer leave no room for a low band and a cutoff above it
INTERPOLATED = 1.85  # effective resolution in voxels from which an axis counts as interpolated

# On 208 hippocampus MR and 40 cine MR, as they are and interpolated (linear, cubic) by 2, 3 and 4
# along one axis, these give 1.0 to 1.7 voxels as they are, and at least 2.0, 2.1, 2.6 after.
_LOW_BAND = 0.2  # of Nyquist: the natural spectrum is fitted below
_STEEPEST = 3.0  # fitted power falls at most with the third power of frequency
_THRESHOLD = 0.1  # of the power that the fit foretells
_MAX_LINES = 4096
_MIN_LINES = 8
_EQUAL = 1e-6  # of the value range


def effective_resolution(
    image: np.ndarray, spacing: Sequence[float], repeated: Sequence[int] | None = None
) -> list[float | None]:
    """Return the effective resolution per axis in mm, at least the spacing.

    Half the period of the finest detail: the frequency from which the power (DCT-II of the lines
    along the axis, geometric mean over lines) stays below a tenth of what a power law foretells
    that is fitted to the lowest fifth of the frequencies. Slices that repeat their neighbour
    exactly count as one.

    Args:
        image: one channel (Z, Y, X), best cropped to what is not zero.
        spacing: mm per axis.
        repeated: what `duplicated_slices` returned, if it is known.

    Returns:
        Per axis mm; None where there are too few voxels, or no variation, to tell, unless
        duplicated slices do.
    """
    result: list[float | None] = []
    repeated = duplicated_slices(image) if repeated is None else repeated
    for axis, spacing_mm in enumerate(spacing):
        voxels = _cutoff_in_voxels(_sampled_lines(image, axis))
        distinct = image.shape[axis] - repeated[axis]
        if repeated[axis]:
            voxels = max(voxels or 1.0, image.shape[axis] / distinct)
        result.append(None if voxels is None else float(spacing_mm * voxels))
    return result


def duplicated_slices(image: np.ndarray) -> list[int]:
    """Return per axis how many slices of (Z, Y, X) repeat the slice before them.

    Slices of a single value, such as padding, do not count.
    """
    return [_repeats_along(image, axis) for axis in range(image.ndim)]


def _repeats_along(image: np.ndarray, axis: int) -> int:
    lines = _sampled_lines(image, axis)
    tolerance = _EQUAL * float(np.ptp(lines)) if lines.size else 0.0
    suspects = np.flatnonzero((np.abs(np.diff(lines, axis=1)) <= tolerance).all(axis=0)) + 1
    slices = np.moveaxis(image, axis, 0)  # the sample only suspects; whole slices convict
    return sum(
        bool(np.ptp(slices[i]) > 0 and np.abs(slices[i] - slices[i - 1]).max() <= tolerance)
        for i in suspects
    )


def _sampled_lines(image: np.ndarray, axis: int) -> np.ndarray:
    """Return up to about `_MAX_LINES` lines (lines, n) along `axis`, evenly spread."""
    across = [n for i, n in enumerate(image.shape) if i != axis]
    step = max(1, int(np.ceil(np.sqrt(np.prod(across) / _MAX_LINES))))
    every = tuple(slice(None) if i == axis else slice(None, None, step) for i in range(image.ndim))
    return np.moveaxis(image[every], axis, -1).reshape(-1, image.shape[axis]).astype(np.float64)


def _cutoff_in_voxels(lines: np.ndarray) -> float | None:
    num_samples = lines.shape[1]
    if num_samples < MIN_SAMPLES:
        return None
    lines = lines[np.ptp(lines, axis=1) > 0]
    if len(lines) < _MIN_LINES:
        return None
    power = dct(lines - lines.mean(axis=1, keepdims=True), type=2, norm="ortho", axis=1)[:, 1:] ** 2
    log_power = np.log(power + 1e-12 * power.mean()).mean(axis=0)
    width = 2 * max(1, round(num_samples / 32)) + 1
    log_power = uniform_filter1d(log_power, width, mode="nearest")
    frequency = np.arange(1, num_samples) / num_samples  # of Nyquist

    low = frequency <= max(_LOW_BAND, frequency[3])
    slope = np.polyfit(np.log(frequency[low]), log_power[low], 1)[0]
    slope = float(np.clip(slope, -_STEEPEST, 0.0))
    offset = float(np.mean(log_power[low] - slope * np.log(frequency[low])))
    foretold = offset + slope * np.log(frequency)

    below = (log_power < foretold + np.log(_THRESHOLD)) & (frequency > _LOW_BAND)
    return float(1 / frequency[np.argmax(below)]) if below.any() else 1.0
