"""A method laid over the plans: the merged plans are what is trained, saved and predicted with."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Sequence
from copy import deepcopy
from math import lcm
from typing import Any

from nnunetv2.utilities.label_handling.label_handling import (
    LabelManager,
    determine_num_input_channels,
)

from srseg.networks.build import build_network, resolve_module_class
from srseg.planning.memory_model import MemoryModel
from srseg.plans.managers import SRSegConfigurationManager, SRSegPlansManager
from srseg.training.losses.joint import SR_TERMS
from srseg.training.method import Method
from srseg.training.topology import hr_topology

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
    labels = plans_manager.get_label_manager(dataset_json)
    merged = deepcopy(manager.configuration)
    merged.pop("inherits_from", None)
    planned_architecture = deepcopy(merged["architecture"])
    architecture = merged["architecture"] = _architecture(manager, method, labels)
    if method.input != "lr":
        merged["input"] = method.input
    if not architecture["arch_kwargs"].get("sr_head", True) and SR_TERMS & set(method.losses):
        raise ValueError(
            f"method '{method.name}' has the SR loss terms {sorted(SR_TERMS & set(method.losses))} "
            "but its network has no SR head (sr_head is false)."
        )
    plans = deepcopy(plans_manager.plans)
    plans["configurations"] = {configuration: merged}
    if architecture != planned_architecture:
        channels = determine_num_input_channels(plans_manager, manager, dataset_json)
        _fit_memory(
            merged, planned_architecture, MemoryModel(channels, labels.num_segmentation_heads)
        )
    return plans


def _architecture(
    manager: SRSegConfigurationManager, method: Method, labels: LabelManager
) -> dict[str, Any]:
    """Return the method's architecture on the planned one, and what it must know of the data.

    Networks are rebuilt from the plans alone, so one that takes `degradation`, `hr_spacing`,
    `region_based` or `num_slices` (of the planned patch) finds them in its arguments.
    """
    architecture = deepcopy(manager.configuration["architecture"])
    if "network_class_name" in method.network:
        architecture["network_class_name"] = method.network["network_class_name"]
    kwargs = architecture["arch_kwargs"]
    if method.network.get("topology", method.input) == "hr":
        kwargs = hr_topology(kwargs, manager.scale, manager.hr_spacing)
    if method.input == "hr":
        kwargs = {**kwargs, "scale": [1] * len(manager.scale), "sr_head": False}
    known = inspect.signature(resolve_module_class(architecture["network_class_name"])).parameters
    of_the_data = {
        "degradation": manager.degradation,
        "hr_spacing": manager.hr_spacing,
        "region_based": labels.has_regions,
        "num_slices": int(manager.patch_size[0]),
    }
    kwargs |= {name: value for name, value in of_the_data.items() if name in known}
    architecture["arch_kwargs"] = kwargs | method.network.get("arch_kwargs", {})
    return architecture


def _fit_memory(
    merged: dict[str, Any], planned_architecture: dict[str, Any], memory: MemoryModel
) -> None:
    """Shrink batch, then patch, of `merged` until it takes no more than the planned network."""
    planned = list(merged["patch_size"]), int(merged["batch_size"])
    architecture = merged["architecture"]
    patch, batch = planned
    budget = batch * memory.elements(planned_architecture, patch)
    factors = merged["scale"] if merged.get("input") == "hr" else [1] * len(patch)

    def elements(lr_patch: Sequence[int]) -> int:
        read = [n * factor for n, factor in zip(lr_patch, factors, strict=True)]
        return memory.elements(architecture, read)

    while batch > 1 and batch * elements(patch) > budget:
        batch -= 1
    network = build_network(architecture, memory.num_channels, memory.num_classes, device="meta")
    divisor = [
        lcm(d, factor) // factor for d, factor in zip(network.lr_divisor, factors, strict=True)
    ]
    while batch * elements(patch) > budget:
        axes = [axis for axis, (n, d) in enumerate(zip(patch, divisor, strict=True)) if n > d]
        if not axes:
            raise ValueError(
                f"the method's network does not fit into the planned memory even with one sample "
                f"of {patch} LR voxels; plan with more -gpu_memory_target."
            )
        longest = max(axes, key=lambda axis: patch[axis])
        patch = [n - divisor[i] if i == longest else n for i, n in enumerate(patch)]
    if patch != planned[0]:
        merged["patch_free"] = False  # it must not predict what is larger than it was trained on
    if (patch, batch) != planned:
        reason = (
            f"the method's network takes more memory than the planned one: batch {planned[1]} -> "
            f"{batch}, LR patch {planned[0]} -> {patch}."
        )
        logger.warning("%s", reason)
        merged.setdefault("rationale", {})["method"] = reason
        merged["patch_size"], merged["batch_size"] = patch, batch
