"""One preprocessed LR image through the network: whole or in tiles, flipped, in low precision.

Everything here is on the network's grids; what comes out is one stack of logits and SR image.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import nn

from srseg import environment
from srseg.inference.sliding_window import pad_edges, padded_shape, stitch
from srseg.networks.output import StackOutputs
from srseg.plans.managers import SRSegConfigurationManager

logger = logging.getLogger(__name__)


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
    """Maps (C, z, y, x) to the stack (K + C, Z, Y, X) of logits and SR image, float32.

    Args:
        network: returns a `JointOutput`.
        configuration_manager: for patch, scale and batch size.
        mirroring_axes: axes test-time flips may use, as counted by the network; None for none.
        settings: how to apply the network.
    """

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
        self._view = StackOutputs(network).to(self.device)
        self._manager = configuration_manager
        self._flips = _flip_combinations(mirroring_axes if settings.use_mirroring else None)

    @torch.inference_mode()
    def __call__(
        self,
        lr_image: torch.Tensor,
        *,
        weights: Mapping[str, torch.Tensor] | None = None,
        one_pass: bool | None = None,
    ) -> torch.Tensor:
        """Return the stack, on the device where it was added up.

        When the GPU's memory does not suffice, tiles are added up in main memory, and a
        patch-free configuration goes over to tiles.

        Args:
            lr_image: (C, z, y, x), normalised, in plan order.
            weights: state dict to load first; None takes the network as it is.
            one_pass: overrides the settings.
        """
        if weights is not None:
            self._view.load_state_dict(weights)
        self._view.eval()
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
                return self._in_batches(lr_image, as_whole, result_device)
            except torch.cuda.OutOfMemoryError:
                logger.warning("the GPU's memory does not suffice; going on more sparingly.")
            torch.cuda.empty_cache()
        return self._in_batches(lr_image, *attempts[-1])

    def _in_batches(
        self, lr_image: torch.Tensor, whole: bool, result_device: torch.device
    ) -> torch.Tensor:
        """Return the (K + C, Z, Y, X) stack; a 2d network takes slices as batches."""
        manager = self._manager
        if len(manager.patch_size) == 3:
            return self._tiled(lr_image[None], whole, result_device)[0]
        slices = lr_image.transpose(0, 1)
        batches = slices.split(max(1, int(manager.batch_size)))
        stacks = [self._tiled(batch, whole, result_device) for batch in batches]
        return torch.cat(stacks).transpose(0, 1)

    def _tiled(self, batch: torch.Tensor, whole: bool, result_device: torch.device) -> torch.Tensor:
        """Return (B, K + C, *HR) for (B, C, *LR): padded, in one pass or in tiles, un-padded."""
        manager = self._manager
        patch = tuple(int(n) for n in manager.patch_size)
        padded, where = pad_edges(
            batch,
            padded_shape(
                batch.shape[2:],
                patch,
                multiple=getattr(self.network, "lr_divisor", (1,) * len(patch)),
                one_pass=whole,
            ),
        )
        stacked = stitch(
            self._with_flips,
            padded.to(self.device),
            tile_size=tuple(padded.shape[2:]) if whole else patch,
            scale=manager.scale,
            step_size=self.settings.step_size,
            result_device=result_device,
        )
        hr_where = (
            slice(axis.start * s, axis.stop * s)
            for axis, s in zip(where, manager.scale, strict=True)
        )
        return stacked[(..., *hr_where)]

    def _with_flips(self, tile: torch.Tensor) -> torch.Tensor:
        """Return the stack for one batch of tiles, averaged over test-time flips."""
        with self._autocast():
            total = self._view(tile)
            if not self._flips:
                return total
            for axes in self._flips:
                total += torch.flip(self._view(torch.flip(tile, axes)), axes)
        return total / (1 + len(self._flips))

    def _autocast(self) -> AbstractContextManager:
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
