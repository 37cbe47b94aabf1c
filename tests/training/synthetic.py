"""Images and labels whose right answer is known."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

BACKGROUND = -0.75  # the normalised value of raw 0


def smooth_noise(shape: Sequence[int], seed: int) -> np.ndarray:
    """Return (1, Z, Y, X) with a falling spectrum and unit variance, as images have."""
    spectrum = np.fft.fftn(np.random.default_rng(seed).normal(size=shape))
    frequencies = np.meshgrid(*[np.fft.fftfreq(n) for n in shape], indexing="ij")
    radius = np.sqrt(sum(f**2 for f in frequencies))
    image = np.fft.ifftn(spectrum / (0.03 + radius) ** 2).real
    return ((image - image.mean()) / image.std())[None].astype(np.float32)


def coordinate_ramp(shape: Sequence[int], spacing: Sequence[float]) -> np.ndarray:
    """Return (3, Z, Y, X): each voxel holds its own position in mm."""
    lines = [np.arange(n) * mm for n, mm in zip(shape, spacing, strict=True)]
    return np.stack(np.meshgrid(*lines, indexing="ij")).astype(np.float32)


def locations(hr_seg: np.ndarray, keys: Sequence[int | tuple[int, ...]]) -> dict:
    """Return nnU-Net's `class_locations`: (n, 4) rows (c, Z, Y, X), or [] for an absent label."""
    rows = {}
    for key in keys:
        found = np.argwhere(np.isin(hr_seg, np.atleast_1d(key))).astype(np.int32)
        rows[key] = found if len(found) else []
    return rows
