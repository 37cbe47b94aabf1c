"""Results of tiles, or of slices, in a window of rows that moves along the first axis.

Rows that no later tile touches are finished; those asked for are handed out and forgotten. So
memory holds the height of a tile, not of the case, with the numbers of `stitch`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Protocol

import torch

from srseg.inference.forward import Forward
from srseg.inference.sliding_window import Tiles
from srseg.inference.source import Stack, check_finite, split_stack

_ROWS = 8  # kept or forgotten together

Weights = Mapping[str, torch.Tensor] | None
Part = tuple[tuple[slice, ...], torch.Tensor]


class _Layers(Protocol):
    """A case in layers: `rows` are [start, stop) of each on the HR grid, in rising order."""

    rows: list[tuple[int, int]]
    hr_shape: tuple[int, ...]
    offset: tuple[int, ...]  # HR voxels of padding before the case

    def predicted(self, layer: int) -> Iterator[Part]:
        """Yield where each part of a layer lies, and the (K + C, Z, Y, X) it adds there."""


class _TileLayers:
    """All tiles that begin at the same slice."""

    def __init__(
        self, forward: Forward, lr_image: torch.Tensor, whole: bool, device: torch.device
    ) -> None:
        self._forward = forward
        self._padded, where, tile_size = forward.padded(forward.as_batch(lr_image), whole)
        self._tiles = Tiles(
            self._padded.shape[2:],
            tile_size=tile_size,
            scale=forward.scale,
            step_size=forward.settings.step_size,
            device=device,
        )
        self.rows, self.hr_shape = self._tiles.rows, self._tiles.hr_shape
        self.offset = tuple(axis.start for axis in forward.hr_box(where))

    def predicted(self, layer: int) -> Iterator[Part]:
        tiles = self._tiles.predicted(layer, self._forward.with_flips, self._padded)
        return ((where, tile[0]) for where, tile in tiles)


class _SliceLayers:
    """The batches of slices that a 2-D network takes."""

    def __init__(
        self, forward: Forward, lr_image: torch.Tensor, whole: bool, device: torch.device
    ) -> None:
        self._forward, self._whole, self._device = forward, whole, device
        self._batches = forward.batches(lr_image)
        stops = accumulate(len(batch) for batch in self._batches)
        self.rows = [
            (stop - len(batch), stop) for stop, batch in zip(stops, self._batches, strict=True)
        ]
        in_plane = zip(lr_image.shape[2:], forward.scale, strict=True)
        self.hr_shape = (lr_image.shape[1], *(n * s for n, s in in_plane))
        self.offset = (0, 0, 0)

    def predicted(self, layer: int) -> Iterator[Part]:
        stack = self._forward.stitched(self._batches[layer], self._whole, self._device)
        where = (slice(*self.rows[layer]), *(slice(0, n) for n in self.hr_shape[1:]))
        yield where, stack.transpose(0, 1)


class TileWindow:
    """The source of networks that go through a case in tiles or in slices.

    Args:
        forward: of the network.
        lr_image: (C, z, y, x), normalised, in plan order.
        weights: a state dict a fold, averaged; None takes the network as it is.
        num_heads: channels K of the logits.
        whole: one pass however large the image.
        device: where results are added up.
    """

    def __init__(
        self,
        forward: Forward,
        lr_image: torch.Tensor,
        weights: Sequence[Weights],
        *,
        num_heads: int,
        whole: bool,
        device: torch.device,
    ) -> None:
        kind = _SliceLayers if forward.is_planar else _TileLayers
        self._layers: _Layers = kind(forward, lr_image, whole, device)
        self._forward, self._weights, self._device = forward, list(weights), device
        self._num_heads = num_heads
        self._next_layer = 0
        self._kept: dict[int, torch.Tensor] = {}  # by row // _ROWS
        self.scale = forward.scale_3d
        self.shape = tuple(n * s for n, s in zip(lr_image.shape[1:], self.scale, strict=True))
        self.context = (0, 0, 0)

    def num_bytes(self, shape: Sequence[int]) -> int:
        """Return 0: the window does not depend on the box."""
        return 0

    def box(self, box: Sequence[slice]) -> Stack:
        """Return what lies in `box`; rows before it can no longer be asked for.

        Raises:
            RuntimeError: if the network answers with NaN or infinite values.
        """
        rows, *in_plane = (
            slice(axis.start + offset, axis.stop + offset)
            for axis, offset in zip(box, self._layers.offset, strict=True)
        )
        for index in [index for index in self._kept if (index + 1) * _ROWS <= rows.start]:
            del self._kept[index]
        while self._finished_rows() < rows.stop:
            self._add_layer()
        pieces = [
            self._kept[index][(slice(None), inside, *in_plane)]
            for index, inside, _ in _pieces(rows)
        ]
        stack = pieces[0] if len(pieces) == 1 else torch.cat(pieces, 1)
        check_finite(stack)
        return split_stack(stack, self._num_heads)

    def _finished_rows(self) -> int:
        """Return how many rows no tile adds to any more."""
        if self._next_layer == len(self._layers.rows):
            return self._layers.hr_shape[0]
        return self._layers.rows[self._next_layer][0]

    def _add_layer(self) -> None:
        for weights in self._weights:
            if len(self._weights) > 1 or self._next_layer == 0:
                self._forward.load(weights)
            for where, part in self._layers.predicted(self._next_layer):
                self._add(where, part if len(self._weights) == 1 else part / len(self._weights))
        self._next_layer += 1

    def _add(self, where: Sequence[slice], part: torch.Tensor) -> None:
        for index, inside, of_part in _pieces(where[0]):
            if index not in self._kept:
                length, *in_plane = self._layers.hr_shape
                rows = min(_ROWS, length - index * _ROWS)
                self._kept[index] = torch.zeros(len(part), rows, *in_plane, device=self._device)
            self._kept[index][(slice(None), inside, *where[1:])] += part[:, of_part]


def _pieces(rows: slice) -> Iterator[tuple[int, slice, slice]]:
    """Yield each group of `_ROWS` rows that `rows` meet, and where in it and in `rows` they lie."""
    for index in range(rows.start // _ROWS, -(-rows.stop // _ROWS)):
        first = index * _ROWS
        start, stop = max(rows.start, first), min(rows.stop, first + _ROWS)
        yield (
            index,
            slice(start - first, stop - first),
            slice(start - rows.start, stop - rows.start),
        )
