"""A user's own encoder (`-encoder package.module:Class --trust`) written into the merged plans.

What it is, and how the network holds it, is in `srseg.networks.user_encoder`. Here it is tried once
on an image of the planned patch, so that the plans can record its channels and a shape that does
not fit is said before anything is trained.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels

from srseg.networks.build import build_network
from srseg.networks.freezing import encoder_place
from srseg.networks.user_encoder import (
    USER_ENCODER,
    check_feature_maps,
    load_user_module,
    user_encoder_of,
)
from srseg.plans.managers import SRSegPlansManager

if TYPE_CHECKING:
    from srseg.training.trainer import SRSegTrainer

logger = logging.getLogger(__name__)


def add_user_encoder(
    plans: dict[str, Any],
    configuration: str,
    import_path: str,
    dataset_json: dict,
    device: torch.device,
) -> None:
    """Record the encoder in the architecture of merged plans; this imports and runs it.

    The memory model has chosen patch and batch by the planned encoder, and so it stays: nothing
    is known of what the user's takes, and being frozen it keeps little for the gradient.

    Args:
        plans: of `merged_plans`; changed in place.
        configuration: the one that is trained.
        import_path: "package.module:Name".
        dataset_json: for channels and labels.
        device: where it is tried.

    Raises:
        ValueError: if it cannot be imported or applied, or returns other feature maps than needed.
    """
    manager = SRSegPlansManager(plans)
    read = manager.get_configuration(configuration).as_read()
    num_channels = determine_num_input_channels(manager, read, dataset_json)
    num_classes = manager.get_label_manager(dataset_json).num_segmentation_heads
    architecture = plans["configurations"][configuration]["architecture"]
    network = build_network(architecture, num_channels, num_classes, device="meta")
    place = encoder_place(network)
    # a serial network's encoder reads the SR image
    scale = network.scale if place.startswith("segmenter") else (1,) * len(read.patch_size)
    axes = [int(n) * factor for n, factor in zip(read.patch_size, scale, strict=True)]
    image = torch.zeros((1, num_channels, *axes), device=device)
    with torch.random.fork_rng(), torch.no_grad():
        module = load_user_module(import_path).to(device).eval()
        try:
            features = module(image)
        except Exception as error:  # of any kind: it is not our code
            raise ValueError(
                f"the encoder {import_path} fails on an image of {tuple(image.shape)} "
                f"({type(error).__name__}: {error})."
            ) from error
    check_feature_maps(features, image.shape, network.get_submodule(place).strides, import_path)
    channels = [int(feature.shape[1]) for feature in features]
    architecture["arch_kwargs"][USER_ENCODER] = {"import_path": import_path, "channels": channels}
    logger.info(
        "%s of the network is %s and stays frozen: %d weights, %s channels",
        place,
        import_path,
        sum(weight.numel() for weight in module.parameters()),
        ", ".join(map(str, channels)),
    )


def check_same_user_encoder(trainer: SRSegTrainer, checkpoint: Mapping[str, Any]) -> None:
    """Refuse to go on from a checkpoint of a training with another user's encoder, or without one.

    Raises:
        ValueError: if they differ; what to give is said.
    """
    trained = checkpoint.get("init_args") or {}
    configuration = (
        trained.get("plans", {}).get("configurations", {}).get(trainer.configuration_name)
    )
    if checkpoint.get("srseg") is None or configuration is None:
        return  # refused for what it is
    before = user_encoder_of(configuration["architecture"])
    now = user_encoder_of(trainer.configuration_manager.configuration["architecture"])
    if before != now:
        began = "without a user's encoder" if before is None else f"with the encoder {before}"
        flags = "leave -encoder out" if before is None else f"give -encoder {before} --trust"
        goes_on = "without it" if now is None else f"with {now}"
        raise ValueError(
            f"the training began {began} and cannot go on {goes_on}; {flags}, or train anew "
            "without --c."
        )
