"""One preprocessed LR image through the network: whole or in tiles, flipped, in low precision.

Everything here is on the network's grids; what comes out is one stack of logits and SR image.
`streaming.py` makes the same stack piece by piece.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import nn

from srseg import environment
from srseg.inference.sliding_window import pad_edges, padded_shape, stitch
from srseg.networks.output import StackOutputs
from srseg.plans.managers import SRSegConfigurationManager

logger = logging.getLogger(__name__)

Result = TypeVar("Result")


@dataclass(frozen=True)
class PredictionSettings:
    """How a network is applied.

    Attributes:
        device: "auto", "cuda", "cpu" or "mps".
        step_size: distance of neighbouring tiles as a fraction of the tile, at most.
        use_mirroring: average over flips along the axes that training allowed.
        one_pass: put every image through the network as a whole, however large.
        autocast: lower precision inside the network (float16 on CUDA, bfloat16 on the CPU). None
            takes it on CUDA and on CPUs that multiply bfloat16 in hardware.
        results_on_device: add tiles up on the GPU; off, and whenever its memory does not
            suffice, in main memory.
    """

    device: str = "auto"
    step_size: float = 0.5
    use_mirroring: bool = True
    one_pass: bool = False
    autocast: bool | None = None
    results_on_device: bool = True

    def __post_init__(self) -> None:
        if not 0 < self.step_size <= 1:
            raise ValueError(f"step_size must be above 0 and at most 1, got {self.step_size}.")


class Forward:
    """A network and how images go through it: (C, z, y, x) to stacks (K + C, Z, Y, X), float32.

    Args:
        network: returns a `JointOutput`.
        configuration_manager: for patch, scale and batch size.
        mirroring_axes: axes test-time flips may use, as counted by the network; None for none.
        settings: how to apply the network.

    Attributes:
        device: where the network computes.
        patch_size: the planned LR patch, an entry per axis of the network.
        scale: refinement per axis of the network.
        batch_size: images, or slices, that the network takes at once.
        flips: every set of axes to flip, counted in a batch (B, C, ...), without the empty one.
        blend_features: blend the trunk's features of tiles on the LR grid and run the HR stage once
            over them. False, for comparisons, blends what the HR stage makes of each tile, which
            networks without a local HR stage do all the same.
    """

    blend_features = True

    def __init__(
        self,
        network: nn.Module,
        configuration_manager: SRSegConfigurationManager,
        *,
        mirroring_axes: Sequence[int] | None,
        settings: PredictionSettings,
    ) -> None:
        self.settings = settings
        self.device = torch.device(environment.resolve_device(settings.device))
        self.network = network
        self.patch_size = tuple(int(n) for n in configuration_manager.patch_size)
        self.scale = configuration_manager.scale
        self.flips = _flip_combinations(mirroring_axes if settings.use_mirroring else None)
        self._view = StackOutputs(network).to(self.device)
        self._manager = configuration_manager
        self.batch_size = max(1, int(configuration_manager.batch_size))

    def stack(
        self,
        lr_image: torch.Tensor,
        weights: Mapping[str, torch.Tensor] | None,
        whole: bool,
        result_device: torch.device,
    ) -> torch.Tensor:
        """Return the stack, in one pass or blended from tiles' stacks, added up on `result_device`.

        Args:
            lr_image: (C, z, y, x), normalised, in plan order.
            weights: state dict to load first; None takes the network as it is.
            whole: one pass however large the image.
            result_device: where tiles are added up.
        """
        self.load(weights)
        stacks = [self.stitched(part, whole, result_device) for part in self.batches(lr_image)]
        return torch.cat(stacks).transpose(0, 1) if self.is_planar else stacks[0][0]

    def load(self, weights: Mapping[str, torch.Tensor] | None) -> None:
        """Put the network into evaluation mode, with these weights unless they are None."""
        if weights is not None:
            self._view.load_state_dict(weights)
        self._view.eval()

    def within_memory(
        self, compute: Callable[[bool, torch.device], Result], one_pass: bool | None = None
    ) -> Result:
        """Return `compute(whole, result_device)`, called again more sparingly while memory fails.

        When the GPU's memory does not suffice, results are added up in main memory, and a
        patch-free configuration goes over to tiles.

        Args:
            compute: takes whether the image goes through as a whole, and where results are kept.
            one_pass: overrides the settings.
        """
        forced = self.settings.one_pass if one_pass is None else one_pass
        whole = forced or self._manager.patch_free
        main_memory, is_cuda = torch.device("cpu"), self.device.type == "cuda"
        attempts = [(whole, main_memory)]
        if is_cuda and self.settings.results_on_device:
            attempts.insert(0, (whole, self.device))
        if is_cuda and whole and not forced:
            attempts.append((False, main_memory))
        for as_whole, result_device in attempts[:-1]:
            try:
                return compute(as_whole, result_device)
            except torch.cuda.OutOfMemoryError:
                logger.warning("the GPU's memory does not suffice; going on more sparingly.")
            torch.cuda.empty_cache()
        return compute(*attempts[-1])

    @property
    def is_planar(self) -> bool:
        """Whether the network is 2-D and takes slices as batches."""
        return len(self.patch_size) == 2

    @property
    def scale_3d(self) -> tuple[int, int, int]:
        """Refinement per axis of a volume: a 2-D network refines no slices."""
        return self._manager.scale_3d

    def as_batch(self, lr_image: torch.Tensor) -> torch.Tensor:
        """Return (C, z, y, x) as a batch (1, C, z, y, x), or of slices (z, C, y, x)."""
        return lr_image.transpose(0, 1) if self.is_planar else lr_image[None]

    def batches(self, lr_image: torch.Tensor) -> list[torch.Tensor]:
        """Return (C, z, y, x) as the batches that the network takes at once."""
        return list(self.as_batch(lr_image).split(self.batch_size))

    def padded(
        self, batch: torch.Tensor, whole: bool
    ) -> tuple[torch.Tensor, tuple[slice, ...], tuple[int, ...]]:
        """Return a batch padded and on the device, where it lies in that, and the tile's size."""
        shape = self._padded_shape(batch.shape[2:], whole)
        padded, where = pad_edges(batch, shape)
        return padded.to(self.device), where, shape if whole else self.patch_size

    def is_one_tile(self, shape: Sequence[int], whole: bool) -> bool:
        """Return whether an image of `shape` (z, y, x) goes through the network as a whole."""
        in_network = shape[-len(self.patch_size) :]
        return whole or self._padded_shape(in_network, whole) == self.patch_size

    def _padded_shape(self, shape: Sequence[int], whole: bool) -> tuple[int, ...]:
        multiple = getattr(self.network, "lr_divisor", (1,) * len(self.patch_size))
        return padded_shape(shape, self.patch_size, multiple=multiple, one_pass=whole)

    def hr_box(self, where: Sequence[slice]) -> tuple[slice, ...]:
        """Return LR slices on the HR grid."""
        return tuple(
            slice(axis.start * s, axis.stop * s) for axis, s in zip(where, self.scale, strict=True)
        )

    def stitched(
        self, batch: torch.Tensor, whole: bool, result_device: torch.device
    ) -> torch.Tensor:
        """Return (B, K + C, *HR) for (B, C, *LR): padded, in one pass or in tiles, un-padded."""
        padded, where, tile_size = self.padded(batch, whole)
        stacked = stitch(
            self.with_flips,
            padded,
            tile_size=tile_size,
            scale=self.scale,
            step_size=self.settings.step_size,
            result_device=result_device,
        )
        return stacked[(..., *self.hr_box(where))]

    def with_flips(self, tile: torch.Tensor) -> torch.Tensor:
        """Return the stack for one batch of tiles, averaged over test-time flips."""
        with self.autocast():
            total = self._view(tile)
            if not self.flips:
                return total
            for axes in self.flips:
                total += torch.flip(self._view(torch.flip(tile, axes)), axes)
        return total / (1 + len(self.flips))

    def autocast(self) -> AbstractContextManager:
        """Return the context of lower precision that the settings and the device ask for."""
        wanted = self.settings.autocast
        if self.device.type == "cuda" and wanted is not False:
            return torch.autocast("cuda", dtype=torch.float16)
        if self.device.type == "cpu" and (
            wanted or (wanted is None and environment.cpu_has_bf16())
        ):
            return torch.autocast("cpu", dtype=torch.bfloat16)
        return nullcontext()


def _flip_combinations(axes: Sequence[int] | None) -> list[tuple[int, ...]]:
    """Return every non-empty set of `axes`, counted in a batch (B, C, ...)."""
    in_batch = sorted(axis + 2 for axis in axes or ())
    sizes = range(1, len(in_batch) + 1)
    return [flip for size in sizes for flip in itertools.combinations(in_batch, size)]
