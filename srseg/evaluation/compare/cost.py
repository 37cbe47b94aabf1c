"""What a network costs, from its plans alone: weights, and operations per HR voxel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from math import prod
from typing import Any

import torch
from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from srseg.networks.build import build_network
from srseg.plans.managers import SRSegConfigurationManager, SRSegPlansManager


def network_cost(
    plans_manager: SRSegPlansManager,
    configuration_manager: SRSegConfigurationManager,
    dataset_json: Mapping[str, Any],
) -> tuple[int, float]:
    """Return what `architecture_cost` does, for a network of srseg's plans.

    Args:
        plans_manager: of the merged plans.
        configuration_manager: of the trained configuration.
        dataset_json: labels and channels.
    """
    manager = configuration_manager.as_read()
    channels = determine_num_input_channels(plans_manager, manager, dict(dataset_json))
    labels = plans_manager.get_label_manager(dict(dataset_json))
    return architecture_cost(
        manager.configuration["architecture"],
        channels,
        labels.num_segmentation_heads,
        manager.patch_size,
        manager.scale,
    )


def architecture_cost(
    architecture: Mapping[str, Any],
    num_channels: int,
    num_heads: int,
    patch_size: Sequence[int],
    scale: Sequence[int],
) -> tuple[int, float]:
    """Return the number of weights, and the FLOPs of one forward pass per HR voxel it predicts.

    The pass is of one planned patch. It runs on torch's "meta" device, where nothing is computed; a
    network with a step that does not exist there runs on the CPU. Convolutions and matrix products
    count, two operations per multiplication and addition; test-time flips and overlapping tiles do
    not.

    Args:
        architecture: of a configuration.
        num_channels: that the network reads.
        num_heads: channels of its logits.
        patch_size: voxels that it reads at once.
        scale: HR voxels per voxel that it reads, per axis.
    """
    build = partial(build_network, architecture, num_channels, num_heads)
    shape = (1, num_channels, *(int(n) for n in patch_size))
    network = build(device="meta").eval()
    parameters = sum(weight.numel() for weight in network.parameters())
    try:
        flops = _flops(network, torch.empty(shape, device="meta"))
    except (RuntimeError, NotImplementedError):
        flops = _flops(build().eval(), torch.zeros(shape))
    return parameters, flops / prod(patch_size) / prod(scale)


def _flops(network: nn.Module, image: torch.Tensor) -> int:
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        network(image)
    return counter.get_total_flops()
