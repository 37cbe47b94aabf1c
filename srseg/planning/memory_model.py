"""What a network takes in training, in nnU-Net's unit: elements of convolution outputs.

nnU-Net calibrated its budget in this unit: 5.6e8 elements a sample at batch 2 (3-D), 8.5e7 at batch
12 (2-D) fill 8 GB. Networks are built on torch's "meta" device, where weights take neither time
nor memory.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import Any

from torch import nn

from srseg.networks.build import build_network
from srseg.planning.json_file import plain

_CALIBRATED_GB = 8.0
_BUDGETS = {2: 8.5e7 * 12, 3: 5.6e8 * 2}  # elements of a whole batch, by number of axes
# Per HR voxel and head channel the losses keep, beyond the counted logits, about as much as two
# more elements: softmax and its gradient, or error and its gradient, in fp32. On nnU-Net's own
# grid they hide in the calibration; here they live on `prod(scale)` times the trunk's voxels.
_LOSS_MAPS = 2


@dataclass(frozen=True)
class MemoryModel:
    """Memory of a network with a given input, output and target.

    Attributes:
        num_channels: of the LR (and SR) image.
        num_classes: channels of the logits.
        gpu_memory_gb: the target.
    """

    num_channels: int
    num_classes: int
    gpu_memory_gb: float = _CALIBRATED_GB

    def budget(self, num_axes: int) -> float:
        """Return how many elements a whole batch may have."""
        return _BUDGETS[num_axes] * self.gpu_memory_gb / _CALIBRATED_GB

    def elements(self, architecture: Mapping[str, Any], lr_patch: Sequence[int]) -> int:
        """Return the elements of one sample: trunk, HR stage, and what the losses add to it.

        Args:
            architecture: of a configuration, see `srseg.networks.build`.
            lr_patch: voxels per axis on the LR grid.
        """
        lr_patch = [int(n) for n in lr_patch]
        network = self._network(architecture)
        counted = int(network.compute_conv_feature_map_size(lr_patch))
        heads = self.num_classes + self.num_channels
        return counted + _LOSS_MAPS * heads * prod(lr_patch) * _refinement(architecture)

    def hr_fraction(self, architecture: Mapping[str, Any], lr_patch: Sequence[int]) -> float:
        """Return which part of `elements` lies on the HR grid."""
        lr_patch = [int(n) for n in lr_patch]
        network = self._network(architecture)
        parts = (network.encoder, network.decoder)
        trunk = sum(int(part.compute_conv_feature_map_size(lr_patch)) for part in parts)
        return 1 - trunk / self.elements(architecture, lr_patch)

    def width_fraction(self, architecture: Mapping[str, Any], lr_patch: Sequence[int]) -> float:
        """Return which part of `elements` grows with `hr_width`."""
        width = architecture["arch_kwargs"]["hr_width"]
        arch_kwargs = {**architecture["arch_kwargs"], "hr_width": width // 2}
        whole = self.elements(architecture, lr_patch)
        less = self.elements({**architecture, "arch_kwargs": arch_kwargs}, lr_patch)
        return (whole - less) / (1 - width // 2 / width) / whole

    def largest_batch(self, architecture: Mapping[str, Any], lr_patch: Sequence[int]) -> int:
        """Return how many samples fit the target; 0 if not even one does."""
        return int(self.budget(len(lr_patch)) / self.elements(architecture, lr_patch))

    def _network(self, architecture: Mapping[str, Any]) -> nn.Module:
        return _on_meta(json.dumps(plain(dict(architecture))), self.num_channels, self.num_classes)


@lru_cache(maxsize=64)
def _on_meta(architecture: str, num_channels: int, num_classes: int) -> nn.Module:
    return build_network(json.loads(architecture), num_channels, num_classes, device="meta")


def _refinement(architecture: Mapping[str, Any]) -> int:
    return prod(int(s) for s in architecture["arch_kwargs"].get("scale", (1,)))
