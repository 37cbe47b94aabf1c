"""A method laid over the plans: the merged plans are what is trained, saved and predicted with."""

from __future__ import annotations

import logging
from copy import deepcopy
from typing import Any

from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels

from srseg.networks.build import build_network
from srseg.planning.memory_model import MemoryModel
from srseg.plans.managers import SRSegPlansManager
from srseg.training.losses.joint import SR_TERMS
from srseg.training.method import Method

logger = logging.getLogger(__name__)


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
        _fit_memory(merged, planned_architecture, MemoryModel(channels, classes))
    return plans


def _fit_memory(
    merged: dict[str, Any], planned_architecture: dict[str, Any], memory: MemoryModel
) -> None:
    """Shrink batch, then patch, of `merged` until it takes no more than the planned network."""
    planned = list(merged["patch_size"]), int(merged["batch_size"])
    architecture = merged["architecture"]
    patch, batch = planned
    budget = batch * memory.elements(planned_architecture, patch)
    while batch > 1 and batch * memory.elements(architecture, patch) > budget:
        batch -= 1
    divisor = build_network(
        architecture, memory.num_channels, memory.num_classes, device="meta"
    ).lr_divisor
    while batch * memory.elements(architecture, patch) > budget:
        axes = [axis for axis, (n, d) in enumerate(zip(patch, divisor, strict=True)) if n > d]
        if not axes:
            raise ValueError(
                f"the method's network does not fit into the planned memory even with one sample "
                f"of {patch} LR voxels; plan with more -gpu_memory_target."
            )
        longest = max(axes, key=lambda axis: patch[axis])
        patch = [n - divisor[i] if i == longest else n for i, n in enumerate(patch)]
    if (patch, batch) != planned:
        reason = (
            f"the method's network takes more memory than the planned one: batch {planned[1]} -> "
            f"{batch}, LR patch {planned[0]} -> {patch}."
        )
        logger.warning("%s", reason)
        merged.setdefault("rationale", {})["method"] = reason
        merged["patch_size"], merged["batch_size"] = patch, batch
