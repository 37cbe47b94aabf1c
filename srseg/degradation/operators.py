"""The registered operators: what a coarser acquisition does to one axis, as a matrix.

Every operator is a dense (n_lr, n_hr) matrix over the half-sample-symmetric extension of the axis
(the volume mirrored at its outer voxel faces, the extension of the DCT-II). From that one choice
follows what the rest relies on: DC gain 1 up to the border, no shift, flips commute, the adjoint
is the transpose. Lengths are in mm and converted to HR voxels once, in here. Distances `d` count
HR voxels from the centre of the LR voxel: whole numbers for odd scales, halves for even ones.

The image given is already blurred by its own voxel, so only the missing part of the LR point
spread function is added (the "added kernel").
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
import torch

PAIRED = "paired"
WINDOWS = ("none", "hamming", "tukey")
FWHM_PER_SIGMA = 2 * math.sqrt(2 * math.log(2))

# where the Gaussian is cut, in sigmas: the two tails hold 6e-5 of its weight
_GAUSS_REACH = 4.0
# the outer share of k-space that the Tukey window tapers
_TUKEY_TAPER = 0.3
# LR voxels after which a crop and its volume agree. A truncated sinc decays slowly: at 6, the
# RMS difference over many crops is at most 3 % of the LR standard deviation (measured: hippocampus
# x2 1.5 %, cine MR x2 2.0 %, x4 2.6 %). Windows tame the tails: 1.0 % at 4, 0.3 % at 2.
_KSPACE_MARGIN = {"none": 6, "tukey": 4, "hamming": 2}


@dataclass(frozen=True)
class AxisGeometry:
    """What an operator must know of an axis.

    Attributes:
        scale: HR voxels per LR voxel, a whole number >= 1.
        hr_spacing_mm: distance of HR voxels.
    """

    scale: int
    hr_spacing_mm: float


def _check_thickness(value: object) -> None:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or value <= 0:
        raise ValueError(f"thickness_mm must be a length above 0 in mm, got {value!r}.")


def _check_window(value: object) -> None:
    if value not in WINDOWS:
        raise ValueError(f"unknown window {value!r}; known: {', '.join(WINDOWS)}.")


@dataclass(frozen=True)
class Operator:
    """One registered operator.

    Attributes:
        description: one line for people.
        matrix: (n_hr, axis, **options) -> (n_lr, n_hr) float64 array.
        margin: (axis, **options) -> LR voxels a crop needs on each side.
        options: a check per option; each option must be given.
        aliased: True where nothing is filtered before sampling.
    """

    description: str
    matrix: Callable[..., np.ndarray]
    margin: Callable[..., int]
    options: Mapping[str, Callable[[Any], None]] = field(default_factory=dict)
    aliased: bool = False


# a kernel returns (distances in HR voxels, weights that sum to 1)
Kernel = Callable[..., tuple[np.ndarray, np.ndarray]]


def _distances(scale: int, reach: float) -> np.ndarray:
    """Return the HR voxel centres within `reach` of an LR centre, and at least the nearest."""
    phase = 0.0 if scale % 2 else 0.5
    steps = max(0, math.floor(reach - phase))
    positive = phase + np.arange(steps + 1)
    return np.unique(np.concatenate([-positive, positive]))


def _gauss_kernel(axis: AxisGeometry, *, thickness_mm: float) -> tuple[np.ndarray, np.ndarray]:
    """Gaussian that widens a PSF of one HR voxel (FWHM) to one of `thickness_mm` (FWHM).

    A thickness below the HR voxel adds nothing: the image cannot be sharpened.
    """
    added = math.sqrt(max(0.0, (thickness_mm / axis.hr_spacing_mm) ** 2 - 1))
    sigma = added / FWHM_PER_SIGMA
    distances = _distances(axis.scale, _GAUSS_REACH * sigma)
    nearest = np.abs(distances).min()
    if sigma == 0:
        weights = (np.abs(distances) == nearest).astype(float)
    else:  # relative to the nearest voxel, so that a very narrow kernel does not underflow
        weights = np.exp((nearest**2 - distances**2) / (2 * sigma**2))
    return distances, weights / weights.sum()


def _slab_kernel(axis: AxisGeometry, *, thickness_mm: float) -> tuple[np.ndarray, np.ndarray]:
    """Overlap of each HR voxel, itself a box, with a centred slab of `thickness_mm`."""
    half = 0.5 * thickness_mm / axis.hr_spacing_mm
    distances = _distances(axis.scale, half + 0.5)
    overlap = np.minimum(distances + 0.5, half) - np.maximum(distances - 0.5, -half)
    weights = np.clip(overlap, 0, None)
    return distances, weights / weights.sum()


def _area_kernel(axis: AxisGeometry) -> tuple[np.ndarray, np.ndarray]:
    distances = np.arange(axis.scale) - (axis.scale - 1) / 2
    return distances, np.full(axis.scale, 1 / axis.scale)


def _bicubic_kernel(axis: AxisGeometry) -> tuple[np.ndarray, np.ndarray]:
    """Keys' cubic (a = -0.5, IEEE TASSP 1981), stretched to the LR grid as Pillow does."""
    distances = _distances(axis.scale, 2.0 * axis.scale)
    d = np.abs(distances) / axis.scale
    near = (1.5 * d - 2.5) * d * d + 1
    far = ((-0.5 * d + 2.5) * d - 4) * d + 2
    weights = np.where(d <= 1, near, np.where(d < 2, far, 0.0))
    return distances, weights / weights.sum()


def _linear_kernel(axis: AxisGeometry) -> tuple[np.ndarray, np.ndarray]:
    distances = _distances(axis.scale, 0.5)
    return distances, np.full(len(distances), 1 / len(distances))


def _nearest_kernel(axis: AxisGeometry) -> tuple[np.ndarray, np.ndarray]:
    # torch's `nearest-exact`: of the two middle voxels of an even block, the upper one
    return np.array([0.0 if axis.scale % 2 else 0.5]), np.ones(1)


def _identity_kernel(axis: AxisGeometry) -> tuple[np.ndarray, np.ndarray]:
    if axis.scale != 1:
        raise ValueError(f"the operator 'identity' is for scale 1, this axis has {axis.scale}.")
    return np.zeros(1), np.ones(1)


def _paired_kernel(axis: AxisGeometry) -> tuple[np.ndarray, np.ndarray]:
    raise ValueError(
        "the degradation is 'paired': the LR image comes from a file and cannot be simulated."
    )


def _local(kernel: Kernel, description: str, **settings: Any) -> Operator:
    """Return the operator of a kernel with finite support; its margin is exact."""

    def matrix(n_hr: int, axis: AxisGeometry, **options: Any) -> np.ndarray:
        distances, weights = kernel(axis, **options)
        n_lr = n_hr // axis.scale
        first = np.rint(distances + (axis.scale - 1) / 2).astype(int)
        columns = axis.scale * np.arange(n_lr)[:, None] + first[None]
        columns %= 2 * n_hr  # mirrored at the outer faces, so periodic with two lengths
        columns = np.where(columns < n_hr, columns, 2 * n_hr - 1 - columns)
        result = np.zeros((n_lr, n_hr))
        np.add.at(result, (np.arange(n_lr)[:, None], columns), weights[None])
        return result

    def margin(axis: AxisGeometry, **options: Any) -> int:
        distances, weights = kernel(axis, **options)
        beyond_block = np.abs(distances[weights != 0]).max() - (axis.scale - 1) / 2
        return max(0, math.ceil(beyond_block / axis.scale))

    return Operator(description, matrix, margin, **settings)


def _kspace_window(count: int, window: str) -> np.ndarray:
    """Return the gain of each of the `count` spatial frequencies that are kept."""
    f = np.arange(count) / count  # 0 at DC, towards 1 at the LR Nyquist frequency
    if window == "hamming":
        return 0.54 + 0.46 * np.cos(np.pi * f)
    if window == "tukey":
        outer = np.clip((f - 1 + _TUKEY_TAPER) / _TUKEY_TAPER, 0, None)
        return 0.5 + 0.5 * np.cos(np.pi * outer)
    return np.ones(count)


def _kspace_matrix(n_hr: int, axis: AxisGeometry, *, window: str) -> np.ndarray:
    """DCT-II of the axis, its lowest n_lr coefficients windowed, inverse DCT-II on the LR grid.

    The DCT-II's cosines are centred on voxel faces, which both grids share; cropping an FFT
    would shift the image by half a voxel difference.
    """
    if axis.scale == 1:
        return np.eye(n_hr)
    n_lr = n_hr // axis.scale
    frequency = np.arange(n_lr)
    to_lr = np.cos(np.pi * np.outer(2 * np.arange(n_lr) + 1, frequency) / (2 * n_lr))
    from_hr = np.cos(np.pi * np.outer(frequency, 2 * np.arange(n_hr) + 1) / (2 * n_hr))
    weight = np.where(frequency == 0, 1.0, 2.0) / n_hr
    return (to_lr * (weight * _kspace_window(n_lr, window))) @ from_hr


def _kspace_margin(axis: AxisGeometry, *, window: str) -> int:
    return 0 if axis.scale == 1 else _KSPACE_MARGIN[window]


OPERATORS: dict[str, Operator] = {
    "kspace_crop": Operator(
        "truncation of k-space (DCT-II), optionally windowed: MR in-plane and 3-D MR",
        _kspace_matrix,
        _kspace_margin,
        options={"window": _check_window},
    ),
    "slice_gauss": _local(
        _gauss_kernel,
        "Gaussian slice profile, FWHM thickness_mm, sampled at the LR spacing: 2-D multislice MR",
        options={"thickness_mm": _check_thickness},
    ),
    "slab_mean": _local(
        _slab_kernel,
        "mean of a slab thickness_mm thick, sampled at the LR spacing: CT slices",
        options={"thickness_mm": _check_thickness},
    ),
    "area": _local(_area_kernel, "mean of the HR voxels of an LR voxel: any volume"),
    "bicubic_aa": _local(_bicubic_kernel, "antialiased bicubic: natural-image comparability"),
    "legacy_linear": _local(
        _linear_kernel, "aliased: order 1 without a filter, as in older papers", aliased=True
    ),
    "legacy_nearest": _local(
        _nearest_kernel,
        "aliased: nearest neighbour without a filter, as in older papers; at even scales off by "
        "half an HR voxel, so that flips do not commute",
        aliased=True,
    ),
    "identity": _local(_identity_kernel, "nothing happens: axes of scale 1"),
    PAIRED: _local(_paired_kernel, "not simulated: the LR image comes from a file"),
}

Options = tuple[tuple[str, float | str], ...]


@lru_cache(maxsize=64)
def operator_matrix(name: str, n_hr: int, axis: AxisGeometry, options: Options) -> torch.Tensor:
    """Return the (n_hr / scale, n_hr) float64 matrix of a registered operator on the CPU.

    Args:
        name: a key of `OPERATORS`.
        n_hr: HR voxels along the axis, a multiple of its scale.
        axis: its geometry.
        options: the operator's options as sorted (name, value) pairs.

    The result is cached: do not write into it.
    """
    # a tensor made under inference_mode could never serve a backward pass later
    with torch.inference_mode(mode=False):
        return torch.from_numpy(OPERATORS[name].matrix(n_hr, axis, **dict(options)))


@lru_cache(maxsize=64)
def cast_matrix(
    name: str,
    n_hr: int,
    axis: AxisGeometry,
    options: Options,
    *,
    dtype: torch.dtype,
    device: torch.device,
) -> torch.Tensor:
    """Return `operator_matrix` in a dtype, on a device; cached: do not write into it."""
    with torch.inference_mode(mode=False):
        # the dtype first: not every device holds 64-bit numbers
        return operator_matrix(name, n_hr, axis, options).to(dtype).to(device)
