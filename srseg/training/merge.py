"""A method laid over the plans: the merged plans are what is trained, saved and predicted with."""

from __future__ import annotations

import logging
from copy import deepcopy
from typing import Any

from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels

from srseg.networks.build import build_network
from srseg.plans.managers import SRSegPlansManager
from srseg.training.losses.joint import SR_TERMS
from srseg.training.method import Method

logger = logging.getLogger(__name__)


def feature_map_elements(
    architecture: dict[str, Any], patch_size: list[int], num_channels: int, num_classes: int
) -> int:
    """Return the elements of all convolution outputs for one LR patch, nnU-Net's memory unit."""
    network = build_network(architecture, num_channels, num_classes, device="meta")
    return int(network.compute_conv_feature_map_size(patch_size))


def merged_plans(
    plans_manager: SRSegPlansManager, configuration: str, method: Method, dataset_json: dict
) -> dict[str, Any]:
    """Return the plans with the method's network in place and the batch fitting the memory.

    The plans stand for a memory budget: their own network, patch and batch fill it. A method whose
    network takes more gets a smaller batch, and once that is 1, a smaller patch along its longest
    axis. What changed is logged and written into `rationale`.

    Args:
        plans_manager: of the planned plans, which stay as they are.
        configuration: the one to train; only it is kept, with inheritance resolved.
        method: what `-tr` named.
        dataset_json: for channels and labels.

    Raises:
        ValueError: if the method's network does not fit the plans, or an SR loss is asked of a
            network without an SR head.
    """
    manager = plans_manager.get_configuration(configuration)
    merged = deepcopy(manager.configuration)
    merged.pop("inherits_from", None)
    architecture = merged["architecture"]
    planned_architecture = deepcopy(architecture)
    if "network_class_name" in method.network:
        architecture["network_class_name"] = method.network["network_class_name"]
    architecture["arch_kwargs"].update(method.network.get("arch_kwargs", {}))
    if not architecture["arch_kwargs"].get("sr_head", True) and SR_TERMS & set(method.losses):
        raise ValueError(
            f"method '{method.name}' has the SR loss terms {sorted(SR_TERMS & set(method.losses))} "
            "but its network has no SR head (sr_head is false)."
        )
    plans = deepcopy(plans_manager.plans)
    plans["configurations"] = {configuration: merged}
    if architecture != planned_architecture:
        channels = determine_num_input_channels(plans_manager, manager, dataset_json)
        classes = plans_manager.get_label_manager(dataset_json).num_segmentation_heads
        _fit_memory(merged, planned_architecture, channels, classes)
    return plans


def _fit_memory(
    merged: dict[str, Any], planned_architecture: dict[str, Any], channels: int, classes: int
) -> None:
    """Shrink batch, then patch, of `merged` until it takes no more than the planned network."""
    patch, batch = list(merged["patch_size"]), int(merged["batch_size"])
    budget = batch * feature_map_elements(planned_architecture, patch, channels, classes)
    architecture = merged["architecture"]
    needed = feature_map_elements(architecture, patch, channels, classes)
    while batch > 1 and batch * needed > budget:
        batch -= 1
    divisor = build_network(architecture, channels, classes, device="meta").lr_divisor
    while batch * needed > budget:
        sizes = [n - d if n > d else 0 for n, d in zip(patch, divisor, strict=True)]
        axis = max(range(len(patch)), key=lambda i: patch[i] if sizes[i] else 0)
        if not sizes[axis]:
            raise ValueError(
                f"the method's network needs {needed} feature-map elements for the smallest patch "
                f"{patch}, the planned memory holds {budget}; plan with more -gpu_memory_target."
            )
        patch[axis] = sizes[axis]
        needed = feature_map_elements(architecture, patch, channels, classes)
    if (patch, batch) != (list(merged["patch_size"]), int(merged["batch_size"])):
        reason = (
            f"the method's network takes more memory than the planned one: batch "
            f"{merged['batch_size']} -> {batch}, LR patch {merged['patch_size']} -> {patch}."
        )
        logger.warning("%s", reason)
        merged.setdefault("rationale", {})["method"] = reason
        merged["patch_size"], merged["batch_size"] = patch, batch
