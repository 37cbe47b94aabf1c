"""Separable linear maps between grids over one field of view: a matrix per axis.

Both grids cover the same field of view with voxel faces coinciding, the convention of
`torch.nn.functional.interpolate(..., align_corners=False)`. A dense (n_out, n_in) matrix per
axis is exact, differentiable, has its transpose as adjoint and runs at matrix-multiply speed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
import torch


def apply_separable(tensor: torch.Tensor, matrices: Sequence[torch.Tensor | None]) -> torch.Tensor:
    """Return `tensor` with one (n_out, n_in) matrix applied along each of its last axes.

    Args:
        tensor: (..., n_in of each axis); floating point.
        matrices: one per trailing axis, None for an axis that stays as it is.

    Raises:
        ValueError: if a matrix does not fit its axis.
    """
    first = tensor.ndim - len(matrices)
    steps = [(first + i, matrix) for i, matrix in enumerate(matrices) if matrix is not None]
    for axis, matrix in steps:
        if matrix.shape[1] != tensor.shape[axis]:
            raise ValueError(
                f"axis {axis} has {tensor.shape[axis]} voxels, the matrix takes {matrix.shape[1]}."
            )
    # the axis that shrinks most goes first: every later product is then smaller
    for axis, matrix in sorted(steps, key=lambda step: step[1].shape[0] / step[1].shape[1]):
        matrix = matrix.to(device=tensor.device, dtype=tensor.dtype)
        if axis == tensor.ndim - 1:
            tensor = tensor @ matrix.T
            continue
        shape = tensor.shape
        flat = tensor.reshape(*shape[: axis + 1], -1)  # the axis is now the one but last
        tensor = (matrix @ flat).reshape(*shape[:axis], matrix.shape[0], *shape[axis + 1 :])
    return tensor


_LANCZOS = 6


def _nearest(distance: np.ndarray) -> np.ndarray:
    return ((distance >= -0.5) & (distance < 0.5)).astype(float)


def _linear(distance: np.ndarray) -> np.ndarray:
    return np.clip(1 - np.abs(distance), 0, None)


def _cubic(distance: np.ndarray) -> np.ndarray:
    """Keys' cubic convolution kernel with a = -0.5 (IEEE TASSP 1981): exact for quadratics."""
    d = np.abs(distance)
    near = (1.5 * d - 2.5) * d * d + 1
    far = ((-0.5 * d + 2.5) * d - 4) * d + 2
    return np.where(d <= 1, near, np.where(d < 2, far, 0.0))


def _lanczos(distance: np.ndarray) -> np.ndarray:
    """A sinc windowed to 6 neighbours on each side: passes nine tenths of the band as it is."""
    d = np.abs(distance)
    return np.where(d < _LANCZOS, np.sinc(d) * np.sinc(d / _LANCZOS), 0.0)


def _centred(weights: np.ndarray, distance: np.ndarray) -> np.ndarray:
    """Return the weights tilted so that each row's centroid is its centre: a ramp stays a ramp.

    A widened kernel is sampled where it has no such property, and misses by 1 % of a voxel.
    """
    hat = _linear(distance / 2)
    lever = hat * (distance - (hat * distance).sum(1, keepdims=True) / hat.sum(1, keepdims=True))
    off = (weights * distance).sum(1, keepdims=True)
    return weights - lever * off / (lever * distance).sum(1, keepdims=True)


_KERNELS: dict[str, tuple[Callable[[np.ndarray], np.ndarray], float]] = {
    "nearest": (_nearest, 0.5),
    "linear": (_linear, 1.0),
    "cubic": (_cubic, 2.0),
    "lanczos": (_lanczos, float(_LANCZOS)),
}


@lru_cache(maxsize=256)
def interpolation_matrix(
    n_in: int, n_out: int, *, kind: str = "linear", antialias: bool = True, least_width: float = 1.0
) -> torch.Tensor:
    """Return the (n_out, n_in) float64 matrix that resamples an axis over the same field of view.

    Samples outside the axis repeat its edge; for "lanczos" the slope goes on. When the axis shrinks
    and `antialias` is set, the kernel is widened by n_in / n_out, so that what the coarser grid
    cannot hold is removed; it is widened by `least_width` in any case, above 1 it smooths.
    "nearest" is never widened.
    The result is cached: do not write into it.

    Raises:
        ValueError: if `kind` is not a known kernel.
    """
    if kind not in _KERNELS:
        raise ValueError(f"unknown interpolation '{kind}'; known: {', '.join(sorted(_KERNELS))}.")
    kernel, support = _KERNELS[kind]
    step = n_in / n_out
    width = max(least_width, step if antialias else 1.0) if kind != "nearest" else 1.0
    centres = (np.arange(n_out) + 0.5) * step - 0.5
    reach = int(np.ceil(support * width)) + 1
    # integer neighbours of each centre, clamped to the edge: clamped weights add up
    neighbours = np.floor(centres)[:, None].astype(int) + np.arange(-reach, reach + 1)[None]
    distance = (neighbours - centres[:, None]) / width
    weights = kernel(distance)
    weights /= weights.sum(axis=1, keepdims=True)
    if width > 1 or kind == "lanczos":
        weights = _centred(weights, distance)
    matrix = np.zeros((n_out, n_in))
    rows = np.broadcast_to(np.arange(n_out)[:, None], neighbours.shape)
    inside = np.clip(neighbours, 0, n_in - 1)
    if kind == "lanczos":  # reaches far: a repeated edge would bend a ramp as far inside
        mirrored = np.clip(2 * inside - neighbours, 0, n_in - 1)
        beyond = np.where(inside != neighbours, weights, 0.0)
        np.add.at(matrix, (rows, mirrored), -beyond)
        weights = weights + beyond
    np.add.at(matrix, (rows, inside), weights)
    with torch.inference_mode(False):  # cached: the next caller may want to differentiate
        return torch.from_numpy(matrix)


def resample(
    tensor: torch.Tensor, new_shape: Sequence[int], *, kind: str = "cubic", antialias: bool = True
) -> torch.Tensor:
    """Return `tensor` resampled to `new_shape` over the same field of view.

    Args:
        tensor: (..., Z, Y, X), floating point; the last `len(new_shape)` axes are resampled.
        new_shape: voxels wanted per axis.
        kind: "nearest", "linear", "cubic" or "lanczos".
        antialias: widen the kernel along axes that shrink.
    """
    old_shape = tensor.shape[-len(new_shape) :]
    matrices = [
        None if old == new else interpolation_matrix(old, int(new), kind=kind, antialias=antialias)
        for old, new in zip(old_shape, new_shape, strict=True)
    ]
    return apply_separable(tensor, matrices)


def box_read(
    box: Sequence[slice],
    old_shape: Sequence[int],
    new_shape: Sequence[int],
    *,
    kind: str = "cubic",
    antialias: bool = True,
) -> tuple[slice, ...]:
    """Return the part of the old grid that `resample(...)[box]` depends on, a slice per axis.

    Args:
        box: slices with start and stop on the new grid, not empty.
        old_shape: voxels of the old grid.
        new_shape: voxels of the new grid.
        kind: as in `resample`.
        antialias: as in `resample`.
    """
    read = []
    for wanted, old, new in zip(box, old_shape, new_shape, strict=True):
        if old == new:
            read.append(slice(wanted.start, wanted.stop))
            continue
        matrix = interpolation_matrix(old, new, kind=kind, antialias=antialias)
        columns = torch.nonzero(matrix[wanted].any(dim=0)).flatten()
        read.append(slice(int(columns[0]), int(columns[-1]) + 1))
    return tuple(read)


def resample_box(
    tensor: torch.Tensor,
    box: Sequence[slice],
    old_shape: Sequence[int],
    new_shape: Sequence[int],
    *,
    at: Sequence[slice] | None = None,
    kind: str = "cubic",
    antialias: bool = True,
) -> torch.Tensor:
    """Return `resample(whole, new_shape)[box]` from the part of the whole that it depends on.

    Args:
        tensor: (..., part), floating point: what lies `at` in the whole.
        box: slices with start and stop on the new grid, not empty.
        old_shape: voxels of the whole.
        new_shape: voxels of the whole when resampled.
        at: slices on the old grid that hold at least `box_read(...)`; None: `tensor` is the whole.
        kind: as in `resample`.
        antialias: as in `resample`.
    """
    options = {"kind": kind, "antialias": antialias}
    read = box_read(box, old_shape, new_shape, **options)
    if at is not None:
        offset = [axis.start for axis in at]
        inside = zip(read, offset, strict=True)
        tensor = tensor[(..., *(slice(r.start - o, r.stop - o) for r, o in inside))]
    else:
        tensor = tensor[(..., *read)]
    matrices = [
        None if old == new else interpolation_matrix(old, new, **options)[wanted, part]
        for wanted, part, old, new in zip(box, read, old_shape, new_shape, strict=True)
    ]
    return apply_separable(tensor, matrices)
