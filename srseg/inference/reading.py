"""A case as the network reads it, from files or from an array, and what cannot be read."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels

from srseg.images.checks import check_case, read_images
from srseg.inference.adapter import Adapter
from srseg.plans.managers import SRSegConfigurationManager, SRSegPlansManager
from srseg.preprocessing.lr_case import target_spacing

logger = logging.getLogger(__name__)

_FINER_THAN_PLANNED = 0.75  # below this fraction of the planned spacing, details are lost


def prepare_case(
    files: Sequence[str | Path],
    plans_manager: SRSegPlansManager,
    configuration_manager: SRSegConfigurationManager,
    dataset_json: Mapping[str, Any],
    adapter: Adapter | None = None,
) -> tuple[np.ndarray, dict[str, Any]]:
    """Return the preprocessed LR image (C, z, y, x) of a case and its LR-native properties.

    Args:
        files: of the case, channels in order.
        plans_manager: of the model.
        configuration_manager: of the model's configuration.
        dataset_json: of the model.
        adapter: what changes the image as read, before its own statistics normalise it.

    Raises:
        ValueError: if a file cannot be used; the message names the case.
    """
    managers = (plans_manager, configuration_manager, dataset_json)
    if adapter is None:
        preprocessor = configuration_manager.preprocessor_class()
        paths = [str(file) for file in files]
        lr_image, _, properties = preprocessor.run_case(paths, None, *managers)
    else:
        image, properties = read_images(plans_manager.image_reader_writer_class(), files)
        lr_image, properties = _prepared(image, properties, files, *managers, adapter)
    native = plans_manager.planned(properties["spacing"])
    planned = target_spacing(native, configuration_manager)
    if any(mm < _FINER_THAN_PLANNED * p for mm, p in zip(native, planned, strict=True)):
        logger.warning(
            "%s is finer (%s mm) than the images this model is for (%s mm): detail is lost.",
            Path(files[0]).name,
            "x".join(f"{mm:.3g}" for mm in native),
            "x".join(f"{mm:.3g}" for mm in planned),
        )
    return lr_image, properties


def prepare_array(
    image: np.ndarray,
    spacing: Sequence[float],
    plans_manager: SRSegPlansManager,
    configuration_manager: SRSegConfigurationManager,
    dataset_json: Mapping[str, Any],
    adapter: Adapter | None = None,
) -> tuple[np.ndarray, dict[str, Any]]:
    """Return the preprocessed LR image (C, z, y, x) of an array and its LR-native properties.

    Args:
        image: (C, Z, Y, X) raw intensities, in the axis order of the training data's reader.
        spacing: mm (Z, Y, X).
        plans_manager: of the model.
        configuration_manager: of the model's configuration.
        dataset_json: of the model.
        adapter: as in `prepare_case`.

    Raises:
        ValueError: if the image has another shape or other channels, or voxels that are not finite.
    """
    if np.ndim(image) != 4 or len(spacing) != 3:
        raise ValueError(
            f"an image must be (C, Z, Y, X) with a spacing (Z, Y, X), got shape "
            f"{np.shape(image)} and spacing {tuple(spacing)}."
        )
    managers = (plans_manager, configuration_manager, dataset_json)
    properties = {"spacing": [float(mm) for mm in spacing]}
    return _prepared(image, properties, ["image"], *managers, adapter)


def _prepared(
    image: np.ndarray,
    properties: dict[str, Any],
    files: Sequence[str | Path],
    plans_manager: SRSegPlansManager,
    configuration_manager: SRSegConfigurationManager,
    dataset_json: Mapping[str, Any],
    adapter: Adapter | None,
) -> tuple[np.ndarray, dict[str, Any]]:
    """Return a raw image in the reader's axis order checked, adapted and preprocessed."""
    managers = (plans_manager, configuration_manager, dataset_json)
    num_channels = determine_num_input_channels(*managers)
    check_case(image, properties, files, num_channels=num_channels)
    if adapter is not None:
        image = adapter.adapt(image)
    preprocessor = configuration_manager.preprocessor_class()
    lr_image, _, properties = preprocessor.run_case_npy(image, None, properties, *managers)
    return lr_image, properties


def check_channels(lr_image: torch.Tensor | np.ndarray, num_channels: int) -> torch.Tensor:
    """Return a preprocessed image (C, z, y, x) as a float32 tensor.

    Raises:
        ValueError: if it does not have that shape and as many channels.
    """
    lr_image = torch.as_tensor(lr_image, dtype=torch.float32)
    if lr_image.ndim != 4 or len(lr_image) != num_channels:
        raise ValueError(
            f"got a preprocessed image of shape {tuple(lr_image.shape)}; it must be (C, z, y, "
            f"x) with {num_channels} channel(s)."
        )
    return lr_image
