"""The LR images of a domain: files of a folder, or what a dataset's LR images are.

Labels are never read.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from batchgenerators.utilities.file_and_folder_operations import load_json
from nnunetv2.imageio.base_reader_writer import BaseReaderWriter

from srseg import environment
from srseg.images.checks import check_case, read_images
from srseg.inference.cases import list_cases
from srseg.inference.image_folder import file_ending_of, reader_of_ending
from srseg.plans.datasets import dataset_name
from srseg.plans.managers import load_plans
from srseg.preprocessing.body import body_map, body_mask
from srseg.preprocessing.case_files import LR_IMAGES, training_images
from srseg.preprocessing.intensity import IntensityMap, apply_maps
from srseg.preprocessing.simulate import simulate_native

logger = logging.getLogger(__name__)

_MOST_CENTRES = 20_000  # body voxels kept a volume, as centres of patches


@dataclass(frozen=True)
class Volume:
    """One training image in the frame of its own body.

    Attributes:
        case: its name.
        image: (C, Z, Y, X) float32.
        maps: from raw values to `image`, a channel each.
        bodies: (C, Z, Y, X) bool.
        centres: (N, 3) voxels of the body.
    """

    case: str
    image: np.ndarray
    maps: list[IntensityMap]
    bodies: np.ndarray
    centres: np.ndarray


@dataclass(frozen=True)
class Domain:
    """The images of one domain.

    Attributes:
        name: what the user called it.
        volumes: at least one, all with the same number of channels.
        reader: nnU-Net's reader that read them.
    """

    name: str
    volumes: list[Volume]
    reader: type[BaseReaderWriter]

    @property
    def num_channels(self) -> int:
        """Of every image."""
        return len(self.volumes[0].image)


def read_domain(
    name: str, *, plans_name: str = "srsegPlans", configuration: str = "3d_fullres"
) -> Domain:
    """Return the LR images that `name` means, in the frame of their bodies.

    An existing folder is one of LR image files. Everything else is the number or name of a dataset:
    its `imagesLrTr` where it has real pairs, else its `imagesTr` after the planned degradation, as
    `srseg_simulate` makes them.

    Args:
        name: folder, or dataset.
        plans_name: of the dataset's plans.
        configuration: of the plans, for the degradation.

    Raises:
        FileNotFoundError: if there is no such folder, or no image in it.
        ValueError: for an unknown dataset, images with different channels, or damaged ones.
    """
    if Path(name).is_dir():
        return read_folder(Path(name))
    if "/" in name:
        raise FileNotFoundError(f"the folder {name} does not exist.")
    raw_root = environment.required_folder("nnUNet_raw")
    folder = raw_root / dataset_name(name, raw_root)
    if (folder / LR_IMAGES).is_dir():
        return read_folder(folder / LR_IMAGES)
    return _simulated(folder, plans_name, configuration)


def read_folder(folder: Path) -> Domain:
    """Return the images of a folder of files; raises as `read_domain`."""
    ending = file_ending_of(folder)
    reader = reader_of_ending(ending)
    volumes = []
    for case in list_cases(folder, ending):
        image, properties = read_images(reader(), case.files)
        check_case(image, properties, case.files, num_channels=len(image))
        volumes.append(volume_of(case.name, image))
    return _domain(str(folder), volumes, reader)


def _simulated(folder: Path, plans_name: str, configuration: str) -> Domain:
    preprocessed = environment.required_folder("nnUNet_preprocessed") / folder.name
    try:
        plans_manager = load_plans(preprocessed / f"{plans_name}.json")
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"the LR images of {folder.name} are simulated by its plans, but there are {error} "
            "Plan it, or give a folder of LR images instead of the dataset."
        ) from error
    configuration_manager = plans_manager.get_configuration(configuration)
    dataset_json = load_json(str(folder / "dataset.json"))
    reader = plans_manager.image_reader_writer_class
    scale = plans_manager.native(configuration_manager.scale_3d)
    volumes = []
    for case, files in training_images(folder, dataset_json).items():
        image, properties = read_images(reader(), files)
        check_case(image, properties, files, num_channels=len(image), scale=scale)
        managers = (plans_manager, configuration_manager)
        lr_image = simulate_native(image, properties["spacing"], *managers)
        volumes.append(volume_of(case, lr_image))
    return _domain(folder.name, volumes, reader)


def _domain(name: str, volumes: Sequence[Volume], reader: type[BaseReaderWriter]) -> Domain:
    first = volumes[0]
    for volume in volumes:
        if len(volume.image) != len(first.image):
            raise ValueError(
                f"the images of {name} have different channels: {first.case} has "
                f"{len(first.image)}, {volume.case} {len(volume.image)}."
            )
    logger.info("%s: %d image(s) with %d channel(s)", name, len(volumes), len(first.image))
    return Domain(name, list(volumes), reader)


def volume_of(case: str, image: np.ndarray) -> Volume:
    """Return a raw image (C, Z, Y, X) in the frame of its own body."""
    image = image.astype(np.float32)
    maps = [body_map(channel) for channel in image]
    bodies = np.stack([body_mask(channel) for channel in image])
    centres = np.argwhere(bodies.any(axis=0))
    step = -(-len(centres) // _MOST_CENTRES)
    return Volume(case, apply_maps(image, maps), maps, bodies, centres[::step].astype(np.int32))


def check_same_channels(source: Domain, target: Domain) -> None:
    """Refuse domains with different numbers of channels.

    Raises:
        ValueError: naming both.
    """
    if source.num_channels != target.num_channels:
        raise ValueError(
            f"the source {source.name} has {source.num_channels} channel(s), but the target "
            f"{target.name} has {target.num_channels}; an adapter needs the same channels."
        )
