"""The HR stage over boxes of LR features: logits and SR image never exist as a whole.

A network with an LR trunk and a local HR stage runs its trunk once. The features are kept, on the
LR grid, and boxes of them with `hr_halo` voxels of context give the HR stage's numbers of the
whole. Every fold and flip has features of its own; what is averaged, box by box, are logits and
images, as in `Forward` and the predictor.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from math import prod
from pathlib import Path

import torch
from torch import nn

from srseg import environment
from srseg.inference.forward import Forward
from srseg.inference.sliding_window import stitch
from srseg.inference.source import Stack, check_finite

_SHARE_OF_MEMORY = 0.5  # of what is free; features that would take more go into files
_BYTES_PER_ELEMENT = 4  # of an HR stage's feature maps

Weights = Mapping[str, torch.Tensor] | None


@dataclass(frozen=True)
class _Look:
    """One fold's HR stage, and what that fold's trunk made of one flip of the image.

    Features stay flipped: the HR stage has to see them in the trunk's orientation.
    """

    stage: nn.Module
    flip: tuple[int, ...]
    features: torch.Tensor


class FeatureSource:
    """The source of networks with a trunk on the LR grid and a local HR stage.

    Args:
        forward: of the network, which has `trunk`, `hr_stage` and `hr_halo`.
        lr_image: (C, z, y, x), normalised, in plan order.
        weights: a state dict a fold, averaged; None takes the network as it is.
        whole: one pass however large the image; else the features of tiles are blended.
        device: where features are kept.
    """

    def __init__(
        self,
        forward: Forward,
        lr_image: torch.Tensor,
        weights: Sequence[Weights],
        *,
        whole: bool,
        device: torch.device,
    ) -> None:
        self._forward = forward
        self._lr_image, where, tile_size = forward.padded(forward.as_batch(lr_image), whole)
        # a 2-D network's slices are its batch: they need no context and are not refined
        missing = 3 - len(where)
        self.scale = forward.scale_3d
        self._halo = (0,) * missing + tuple(forward.network.hr_halo)
        self._lr_shape = (len(self._lr_image),) * missing + tuple(self._lr_image.shape[2:])
        self._offset = (0,) * missing + tuple(axis.start for axis in forward.hr_box(where))
        self.shape = tuple(n * s for n, s in zip(lr_image.shape[1:], self.scale, strict=True))
        self.context = tuple(h * s for h, s in zip(self._halo, self.scale, strict=True))
        self._has_sr = getattr(forward.network, "super_resolves", True)
        self._looks: list[_Look] = []
        room = _Room(len(weights) * (1 + len(forward.flips)), device)
        for state in weights:
            forward.load(state)
            stage = forward.network.hr_stage
            if len(weights) > 1:  # the next fold's weights go into the same network
                stage = deepcopy(stage)
            for flip in ((), *forward.flips):
                features = room.keep(self._trunk(flip, tile_size), len(self._lr_image))
                self._looks.append(_Look(stage, flip, features))

    def num_bytes(self, shape: Sequence[int]) -> int:
        """Return about how much memory the HR stage takes for a box of `shape`."""
        lr_shape = [
            min(-(-n // s) + 2 * halo, size)
            for n, s, halo, size in zip(shape, self.scale, self._halo, self._lr_shape, strict=True)
        ]
        look = self._looks[0]
        count = getattr(look.stage, "compute_conv_feature_map_size", None)
        if count is None:  # it interpolates the features
            elements = look.features.shape[1] * prod(lr_shape) * prod(self.scale)
        else:
            num_axes = look.features.ndim - 2
            elements = prod(lr_shape[:-num_axes]) * count(lr_shape[-num_axes:])
        return _BYTES_PER_ELEMENT * elements

    def box(self, box: Sequence[slice]) -> Stack:
        """Return the average over all folds and flips in `box`.

        Raises:
            RuntimeError: if the network answers with NaN or infinite values.
        """
        region, inside = self._region(box)
        lr_image = self._cut(self._lr_image, region)
        total: list[torch.Tensor] = []
        for look in self._looks:
            parts = self._look_at(look, region, lr_image)
            parts = [part[(..., *inside)] for part in parts if part is not None]
            if total:
                for so_far, part in zip(total, parts, strict=True):
                    so_far += part
            else:
                total = parts
        if len(self._looks) > 1:
            for part in total:
                part /= len(self._looks)
        check_finite(*total)
        return Stack(total[0], total[1] if len(total) > 1 else None)

    def _trunk(self, flip: tuple[int, ...], tile_size: Sequence[int]) -> Iterator[torch.Tensor]:
        """Yield the trunk's finest features of the flipped image, batch after batch."""
        forward = self._forward
        dtype = torch.float32

        def finest(tile: torch.Tensor) -> torch.Tensor:
            nonlocal dtype
            with forward.autocast():
                features = forward.network.trunk(tile)[0]
            dtype = features.dtype
            return features

        for batch in self._lr_image.split(forward.batch_size):
            flipped = torch.flip(batch, flip) if flip else batch
            if tuple(batch.shape[2:]) == tuple(tile_size):
                yield finest(flipped)
                continue
            features = stitch(
                finest,
                flipped,
                tile_size=tile_size,
                scale=(1,) * len(tile_size),
                step_size=forward.settings.step_size,
            )
            yield features.to(dtype)

    def _region(self, box: Sequence[slice]) -> tuple[list[slice], list[slice]]:
        """Return the LR voxels that `box` depends on, and where it lies in their HR voxels."""
        region, inside = [], []
        axes = zip(box, self._offset, self.scale, self._halo, self._lr_shape, strict=True)
        for axis, offset, s, halo, size in axes:
            start, stop = axis.start + offset, axis.stop + offset
            first, last = max(0, start // s - halo), min(size, -(-stop // s) + halo)
            region.append(slice(first, last))
            inside.append(slice(start - first * s, stop - first * s))
        return region, inside

    def _look_at(
        self, look: _Look, region: Sequence[slice], lr_image: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return one HR stage's (K, Z, Y, X) and (C, Z, Y, X) of a region, flipped back."""
        flipped = list(region)
        for axis in look.flip:  # counted in the batch; the last axes are those of the volume
            axis -= lr_image.ndim
            size = self._lr_shape[axis]
            flipped[axis] = slice(size - region[axis].stop, size - region[axis].start)
        features = self._cut(look.features, flipped).to(self._forward.device)
        if look.flip:
            lr_image = torch.flip(lr_image, look.flip)
        with self._forward.autocast():
            parts = look.stage(features, lr_image)
        parts = (parts[0], parts[1] if self._has_sr else None)
        if look.flip:
            parts = (part if part is None else torch.flip(part, look.flip) for part in parts)
        planar = self._forward.is_planar
        return tuple(
            part if part is None else part.transpose(0, 1) if planar else part[0] for part in parts
        )

    def _cut(self, batch: torch.Tensor, region: Sequence[slice]) -> torch.Tensor:
        """Return a region of a batch, whose first axis is the slices of a 2-D network."""
        if self._forward.is_planar:
            return batch[(region[0], slice(None), *region[1:])]
        return batch[(..., *region)]


class _Room:
    """Where features are kept: on a device, or in files where main memory is too small for all.

    Args:
        count: how many there will be, all of one size.
        device: where to keep them.
    """

    def __init__(self, count: int, device: torch.device) -> None:
        self._count, self._device = count, device
        self._in_files: bool | None = None

    def keep(self, batches: Iterator[torch.Tensor], length: int) -> torch.Tensor:
        """Return `batches`, `length` long together, as one tensor."""
        kept: torch.Tensor | None = None
        done = 0
        for batch in batches:
            if kept is None:
                shape = (length, *batch.shape[1:])
                if self._in_files is None:
                    self._in_files = self._too_large(self._count * prod(shape) * batch.itemsize)
                if length == len(batch) and not self._in_files:
                    return batch.to(self._device)
                kept = self._empty(shape, batch.dtype)
            kept[done : done + len(batch)] = batch
            done += len(batch)
        assert kept is not None  # there is at least one batch
        return kept

    def _too_large(self, num_bytes: int) -> bool:
        """Return whether files are needed, and have room."""
        if self._device.type != "cpu":
            return False
        needed = num_bytes > _SHARE_OF_MEMORY * environment.available_memory()
        return needed and num_bytes < shutil.disk_usage(tempfile.gettempdir()).free

    def _empty(self, shape: Sequence[int], dtype: torch.dtype) -> torch.Tensor:
        if not self._in_files:
            return torch.empty(shape, dtype=dtype, device=self._device)
        # the file loses its name at once and its place when the tensor goes
        with tempfile.TemporaryDirectory(prefix="srseg-", ignore_cleanup_errors=True) as folder:
            file = str(Path(folder) / "features")
            return torch.from_file(file, shared=True, size=prod(shape), dtype=dtype).reshape(shape)
