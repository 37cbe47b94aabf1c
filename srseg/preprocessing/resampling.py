"""Resampling between grids over one field of view, with the signature nnU-Net's managers call.

Images are anti-aliased when an axis shrinks, and have the same kernel along every axis: nnU-Net's
default aliases, and repeats slices along thick axes, both of which super-resolution would learn.

Labels are not: where the largest share wins, a low-pass shrinks what bulges and loses what is thin
(a linear one took 10 % off balls of three coarse voxels' radius). Keys' cubic kernel has no second
moment, so curved surfaces stay where they are, whichever way they bend.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from scipy.ndimage import find_objects

from srseg.geometry.separable import apply_separable, interpolation_matrix, resample

# Of the kernel for labels, in their own voxels. At 1 it repeats the steps of the surface as drawn;
# beyond 1.6 a sheet one voxel thin has less than half the share at factor 2, and vanishes.
_LABEL_WIDTH = 1.25
# Voxels by which samples are off their place: enough to decide ties, too little to decide more.
_HAIR = 1e-3


def resample_image(
    data: np.ndarray | torch.Tensor,
    new_shape: Sequence[int],
    current_spacing: Sequence[float] | None = None,
    new_spacing: Sequence[float] | None = None,
    *,
    kind: str = "cubic",
) -> np.ndarray | torch.Tensor:
    """Return `data` resampled to `new_shape` over the same field of view, in its own type.

    Args:
        data: (C, Z, Y, X) image, logits or probabilities; NumPy or torch, float32 comes back.
        new_shape: voxels (Z, Y, X) wanted.
        current_spacing: not used, nnU-Net passes it: the field of view fixes the ratio.
        new_spacing: not used.
        kind: "linear" or "cubic".
    """
    if tuple(data.shape[1:]) == tuple(int(n) for n in new_shape):
        return data
    tensor = torch.as_tensor(data).float()
    resampled = resample(tensor, new_shape, kind=kind)
    return resampled if isinstance(data, torch.Tensor) else resampled.numpy()


def resample_segmentation(
    data: np.ndarray,
    new_shape: Sequence[int],
    current_spacing: Sequence[float] | None = None,
    new_spacing: Sequence[float] | None = None,
) -> np.ndarray:
    """Return a label map resampled to `new_shape` over the same field of view.

    Each label's mask is interpolated (cubic, not anti-aliased) inside the box it can reach, and the
    label with the largest share at a voxel's centre wins. An axis that keeps its number of voxels
    is left alone. A tie is decided a hair further from the middle of the grid: flips commute, the
    two faces of a structure move the same way, and its number does not count. In the very middle
    and on diagonals, where that decides nothing, the higher label wins, as with nnU-Net.

    Args:
        data: (1, Z, Y, X) labels, negative ones (outside the non-zero crop) allowed.
        new_shape: voxels (Z, Y, X) wanted.
        current_spacing: not used, nnU-Net passes it.
        new_spacing: not used.
    """
    new_shape = tuple(int(n) for n in new_shape)
    if data.shape[1:] == new_shape:
        return data
    matrices = [_label_matrix(old, new) for old, new in zip(data.shape[1:], new_shape, strict=True)]
    resampled = np.empty((len(data), *new_shape), dtype=data.dtype)
    for channel, labels in enumerate(data):
        resampled[channel] = _largest_share(labels, matrices)
    return resampled


def _label_matrix(n_in: int, n_out: int) -> torch.Tensor:
    """Return the (n_out, n_in) float32 matrix that takes a label's mask along an axis to shares."""
    if n_in == n_out:
        return torch.eye(n_in)
    matrix = interpolation_matrix(
        n_in, n_out, kind="cubic", antialias=False, least_width=_LABEL_WIDTH
    )
    if n_in > 1:
        slope = torch.from_numpy(np.gradient(np.eye(n_in), axis=0))  # of the axis, per voxel
        from_middle = torch.arange(n_out) - (n_out - 1) / 2
        matrix = matrix + _HAIR * from_middle.trunc().sign()[:, None] * (matrix @ slope)
    return matrix.float()


def _largest_share(labels: np.ndarray, matrices: Sequence[torch.Tensor]) -> np.ndarray:
    """Return the (Z, Y, X) label map in which every voxel takes the label that fills it most."""
    lowest = int(labels.min())
    numbers = labels.astype(np.int32) - lowest + 1  # from 1, as find_objects counts
    shape = tuple(matrix.shape[0] for matrix in matrices)
    share = np.full(shape, -np.inf, dtype=np.float32)
    winner = np.empty(shape, dtype=labels.dtype)
    for number, box in enumerate(find_objects(numbers), start=1):
        if box is None:  # a number between two labels
            continue
        reached, local = _reach(box, matrices)
        mask = torch.from_numpy((numbers[box] == number).astype(np.float32))
        own = apply_separable(mask, local).numpy()
        # shares that are equal but for rounding are a tie, which the higher label gets
        better = own > share[reached] - 1e-5
        share[reached][better] = own[better]
        winner[reached][better] = number + lowest - 1
    return winner


def _reach(
    box: Sequence[slice], matrices: Sequence[torch.Tensor]
) -> tuple[tuple[slice, ...], list[torch.Tensor]]:
    """Return where on the new grid the voxels of `box` count, and the matrices between both."""
    reached, local = [], []
    for inside, matrix in zip(box, matrices, strict=True):
        columns = matrix[:, inside]
        rows = torch.nonzero(columns.any(dim=1)).flatten()
        # one run: a row between two others that the box does not count in does no harm
        run = slice(int(rows[0]), int(rows[-1]) + 1) if len(rows) else slice(0, 0)
        reached.append(run)
        local.append(columns[run])
    return tuple(reached), local
