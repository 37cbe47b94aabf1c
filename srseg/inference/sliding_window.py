"""One pass or tiles: how an LR volume of any size goes through a network with a fixed patch.

Both grids have a whole-number ratio and coinciding faces, so an LR tile at index i lies at exactly
scale * i on the HR grid. Tiles are blended with weights that add up to one at every HR voxel (a
partition of unity), so nothing is divided afterwards and a constant stays a constant.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from nnunetv2.inference.sliding_window_prediction import compute_steps_for_sliding_window
from torch.nn import functional as F

Predict = Callable[[torch.Tensor], torch.Tensor]

_SIGMA_OF_TILE = 1 / 8  # nnU-Net's: the Gaussian is 4 sigma from the tile's centre to its border


def padded_shape(
    shape: Sequence[int],
    patch_size: Sequence[int],
    *,
    multiple: Sequence[int],
    one_pass: bool,
) -> tuple[int, ...]:
    """Return the LR shape a volume is padded to before it goes through the network.

    An axis is padded up to the planned patch, as in training. In one pass an axis longer than the
    patch is padded up to the next multiple of the network's strides; tiles need no such padding.

    Args:
        shape: LR voxels per axis.
        patch_size: the planned LR patch, as many axes.
        multiple: product of the network's strides per axis.
        one_pass: whether the whole volume goes through at once.
    """
    padded = []
    for n, patch, m in zip(shape, patch_size, multiple, strict=True):
        if n <= patch:
            padded.append(int(patch))
        else:
            padded.append(-(-n // m) * m if one_pass else n)
    return tuple(padded)


def pad_edges(
    lr_image: torch.Tensor, new_shape: Sequence[int]
) -> tuple[torch.Tensor, tuple[slice, ...]]:
    """Return `lr_image` padded to `new_shape`, and the slices where the original lies in it.

    Edge values are repeated, because training masks its losses outside the volume but never sees
    a step there; the original lies in the centre, the odd voxel above, as in nnU-Net.

    Args:
        lr_image: (B, C, z, y, x) or (B, C, y, x).
        new_shape: one length per spatial axis, none smaller than the image's.
    """
    below_above = []
    where = []
    for n, wanted in zip(lr_image.shape[2:], new_shape, strict=True):
        below = (wanted - n) // 2
        below_above.append((below, wanted - n - below))
        where.append(slice(below, below + n))
    if any(above for _, above in below_above):
        # torch wants the last axis first
        flat = [pad for pair in reversed(below_above) for pad in pair]
        lr_image = F.pad(lr_image, flat, mode="replicate")
    return lr_image, tuple(where)


def tile_starts(
    shape: Sequence[int], tile_size: Sequence[int], step_size: float
) -> list[list[int]]:
    """Return, per axis, the LR indices at which tiles begin; the last tile ends at the border.

    Args:
        shape: LR voxels per axis.
        tile_size: LR voxels of a tile per axis.
        step_size: distance of neighbouring tiles as a fraction of the tile, at most.

    Raises:
        ValueError: if the step is not in (0, 1], or the volume is smaller than a tile.
    """
    if not 0 < step_size <= 1:
        raise ValueError(f"step_size must be above 0 and at most 1, got {step_size}.")
    if any(n < tile for n, tile in zip(shape, tile_size, strict=True)):
        raise ValueError(
            f"a volume of {tuple(shape)} voxels is smaller than a tile of {tuple(tile_size)}; "
            "pad it first."
        )
    return compute_steps_for_sliding_window(tuple(shape), tuple(tile_size), step_size)


def tile_weights(starts: Sequence[int], tile_size: int) -> np.ndarray:
    """Return (num_tiles, tile_size) float64: each tile's share of the voxels it covers on an axis.

    A Gaussian around the tile's centre, divided by the sum over all tiles covering the voxel. All
    tiles together give exactly 1 everywhere, and the outer product over axes does so in space.

    Args:
        starts: index at which each tile begins, on the grid of the result.
        tile_size: length of a tile on that grid.
    """
    position = np.arange(tile_size) - (tile_size - 1) / 2
    gaussian = np.exp(-0.5 * (position / (_SIGMA_OF_TILE * tile_size)) ** 2)
    total = np.zeros(max(starts) + tile_size)
    for start in starts:
        total[start : start + tile_size] += gaussian
    return np.stack([gaussian / total[start : start + tile_size] for start in starts])


def _outer(vectors: Sequence[torch.Tensor]) -> torch.Tensor:
    """Return the outer product of one vector per axis, (len of each)."""
    product = vectors[0]
    for vector in vectors[1:]:
        product = product[..., None] * vector
    return product


class Tiles:
    """The tiles of a padded LR volume in layers along its first axis, and their weights.

    Args:
        shape: LR voxels of the volume per spatial axis; no axis below the tile.
        tile_size: LR voxels of a tile per axis.
        scale: refinement per axis.
        step_size: distance of neighbouring tiles as a fraction of the tile, at most.
        device: where tiles are weighted and added up.

    Attributes:
        hr_shape: HR voxels of the volume per axis.

    Raises:
        ValueError: if the volume is smaller than a tile or the step is not in (0, 1].
    """

    def __init__(
        self,
        shape: Sequence[int],
        *,
        tile_size: Sequence[int],
        scale: Sequence[int],
        step_size: float,
        device: torch.device,
    ) -> None:
        self._starts = tile_starts(shape, tile_size, step_size)
        self._tile_size, self._scale, self._device = tuple(tile_size), tuple(scale), device
        self.hr_shape = tuple(n * s for n, s in zip(shape, scale, strict=True))
        self._hr_tile = tuple(n * s for n, s in zip(tile_size, scale, strict=True))
        self._weights = [
            torch.from_numpy(tile_weights([s * start for start in starts], n)).to(
                device, torch.float32
            )
            for starts, s, n in zip(self._starts, scale, self._hr_tile, strict=True)
        ]

    @property
    def is_one(self) -> bool:
        """Whether there is one tile, which then is the result."""
        return all(len(starts) == 1 for starts in self._starts)

    @property
    def rows(self) -> list[tuple[int, int]]:
        """The HR rows [start, stop) along the first axis that each layer of tiles covers."""
        factor, length = self._scale[0], self._hr_tile[0]
        return [(start * factor, start * factor + length) for start in self._starts[0]]

    def predicted(
        self, layer: int, predict: Predict, lr_image: torch.Tensor
    ) -> Iterator[tuple[tuple[slice, ...], torch.Tensor]]:
        """Yield where each tile of a layer lies on the HR grid, and its float32 share there.

        Args:
            layer: index into `rows`.
            predict: as in `stitch`.
            lr_image: (B, C, *shape).

        Raises:
            ValueError: if `predict` answers with another shape.
        """
        others = (range(len(starts)) for starts in self._starts[1:])
        for index in itertools.product((layer,), *others):
            corner = [starts[i] for starts, i in zip(self._starts, index, strict=True)]
            lr_slices = [slice(c, c + n) for c, n in zip(corner, self._tile_size, strict=True)]
            tile = predict(lr_image[(..., *lr_slices)].contiguous())
            tile = tile.to(self._device, torch.float32)
            if tuple(tile.shape[2:]) != self._hr_tile:
                raise ValueError(
                    f"an LR tile of {self._tile_size} voxels came back as "
                    f"{tuple(tile.shape[2:])}; with scale {self._scale} it must be "
                    f"{self._hr_tile}."
                )
            where = zip(corner, self._scale, self._hr_tile, strict=True)
            hr_slices = tuple(slice(c * s, c * s + n) for c, s, n in where)
            if not self.is_one:  # else its weights are all one
                tile = tile * _outer([w[i] for w, i in zip(self._weights, index, strict=True)])
            yield hr_slices, tile


def stitch(
    predict: Predict,
    lr_image: torch.Tensor,
    *,
    tile_size: Sequence[int],
    scale: Sequence[int],
    step_size: float = 0.5,
    result_device: torch.device | str | None = None,
) -> torch.Tensor:
    """Return `predict` of every LR tile, blended on the HR grid in float32.

    Args:
        predict: maps an LR tile (B, C, z, y, x) to (B, channels, Z, Y, X), `scale` times finer.
        lr_image: (B, C, z, y, x), or (B, C, y, x) for a 2d network; no axis below the tile.
        tile_size: LR voxels of a tile per spatial axis.
        scale: refinement per spatial axis.
        step_size: distance of neighbouring tiles as a fraction of the tile, at most.
        result_device: where the result is added up; by default where `lr_image` is.

    Raises:
        ValueError: if the volume is smaller than a tile, the step is not in (0, 1], or `predict`
            answers with another shape.
    """
    device = torch.device(result_device) if result_device is not None else lr_image.device
    tiles = Tiles(
        lr_image.shape[2:], tile_size=tile_size, scale=scale, step_size=step_size, device=device
    )
    result: torch.Tensor | None = None
    for layer in range(len(tiles.rows)):
        for where, tile in tiles.predicted(layer, predict, lr_image):
            if tiles.is_one:
                return tile
            if result is None:
                result = torch.zeros(*tile.shape[:2], *tiles.hr_shape, device=device)
            result[(..., *where)] += tile
    assert result is not None  # tile_starts gives at least one tile
    return result
