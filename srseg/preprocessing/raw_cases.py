"""The training cases of a raw dataset: which files belong to them, and what is read from them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from nnunetv2.utilities.utils import get_filenames_of_train_images_and_targets

from srseg.images.checks import check_case, declared_labels, read_images, read_segmentation
from srseg.images.write import stored_dtypes
from srseg.plans.managers import SRSegConfigurationManager, SRSegPlansManager
from srseg.preprocessing.paired import on_refined_grid

IMAGES, LABELS, LR_IMAGES = "imagesTr", "labelsTr", "imagesLrTr"


@dataclass(frozen=True)
class CaseFiles:
    """The raw files of one training case.

    Attributes:
        case: its name.
        images: HR image, one file a channel.
        label: label map on the HR image's grid.
        lr_images: the LR image of a real pair, one file a channel; None where it is simulated.
    """

    case: str
    images: tuple[Path, ...]
    label: Path
    lr_images: tuple[Path, ...] | None = None

    @property
    def all_files(self) -> tuple[Path, ...]:
        """All that are read: nnU-Net's TIFF reader takes the spacing from a JSON file beside."""
        files = (*self.images, self.label, *(self.lr_images or ()))
        folders = sorted({file.parent for file in files})
        beside = (folder / f"{self.case}.json" for folder in folders)
        return (*files, *(file for file in beside if file.is_file()))


@dataclass(frozen=True)
class RawCase:
    """A training case as read, in the reader's axis order.

    Attributes:
        hr_image: (C, Z, Y, X).
        hr_seg: (1, Z, Y, X) labels.
        properties: of the HR image, as nnU-Net's readers return them.
        dtypes: name of the dtype that the HR image's file stores, for each channel.
        lr_image: (C, z, y, x) of a real pair, whose grid refined by the scale is the HR grid; None
            where the LR image is to be simulated.
        valid: (Z, Y, X) bool, False where a pair's HR image does not reach; None where it is
            everywhere.
    """

    hr_image: np.ndarray
    hr_seg: np.ndarray
    properties: dict[str, Any]
    dtypes: Sequence[str]
    lr_image: np.ndarray | None = None
    valid: np.ndarray | None = None


def training_files(raw_folder: Path, dataset_json: Mapping[str, Any]) -> dict[str, CaseFiles]:
    """Return the files of every training case of a raw dataset, by case, sorted.

    Args:
        raw_folder: `nnUNet_raw/DatasetXXX_Name`.
        dataset_json: its dataset.json; a "dataset" entry that lists files is followed.

    Raises:
        FileNotFoundError: if there are no cases, or a label or a pair's LR image is missing.
    """
    ending = dataset_json["file_ending"]
    if "dataset" in dataset_json:
        listed = get_filenames_of_train_images_and_targets(str(raw_folder), dict(dataset_json))
        images = {
            name: tuple(Path(file) for file in files["images"]) for name, files in listed.items()
        }
        labels = {name: Path(files["label"]) for name, files in listed.items()}
    else:
        images = files_by_case(raw_folder / IMAGES, ending)
        labels = {name: raw_folder / LABELS / f"{name}{ending}" for name in images}
    if not images:
        raise FileNotFoundError(
            f"no training cases: {raw_folder / IMAGES} has no files named <case>_0000{ending}."
        )
    lr_folder = raw_folder / LR_IMAGES
    lr_images = files_by_case(lr_folder, ending) if lr_folder.is_dir() else None
    cases = {}
    for name in sorted(images):
        pair = None if lr_images is None else lr_images.get(name)
        if lr_images is not None and pair is None:
            raise FileNotFoundError(
                f"case {name} has no LR image {lr_folder / f'{name}_0000{ending}'}; with a folder "
                f"{LR_IMAGES} every case needs one."
            )
        cases[name] = CaseFiles(name, images[name], labels[name], pair)
        for file in cases[name].all_files:
            if not file.is_file():
                raise FileNotFoundError(f"case {name} has no file {file}.")
    return cases


def files_by_case(folder: Path, ending: str) -> dict[str, tuple[Path, ...]]:
    """Return the image files `<case>_XXXX<ending>` of a folder by case, channels in order.

    Raises:
        FileNotFoundError: if the folder does not exist.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"the folder {folder} does not exist.")
    pattern = re.compile(rf"(.+)_(\d{{4}}){re.escape(ending)}")
    found: dict[str, list[Path]] = {}
    for file in sorted(folder.iterdir()):
        if match := pattern.fullmatch(file.name):
            found.setdefault(match[1], []).append(file)
    return {name: tuple(files) for name, files in found.items()}


def read_raw_case(
    files: CaseFiles,
    plans_manager: SRSegPlansManager,
    configuration_manager: SRSegConfigurationManager,
    dataset_json: Mapping[str, Any],
) -> RawCase:
    """Return a training case as read and checked; a real pair on one pair of grids.

    Raises:
        ValueError: in one sentence that names the case, for files that cannot be trained on.
        FileNotFoundError: for a missing file.
    """
    reader = plans_manager.image_reader_writer_class()
    scale = plans_manager.native(configuration_manager.scale_3d)
    num_channels = len(dataset_json["channel_names"])
    is_pair = files.lr_images is not None

    hr_image, properties = read_images(reader, files.images)
    hr_seg, seg_properties = read_segmentation(reader, files.label)
    check_case(
        hr_image,
        properties,
        files.images,
        num_channels=num_channels,
        scale=None if is_pair else scale,
        segmentation=(hr_seg, seg_properties),
        labels=declared_labels(dataset_json),
    )
    dtypes = [str(dtype) for dtype in stored_dtypes(files.images, num_channels)]
    if not is_pair:
        return RawCase(hr_image, hr_seg, properties, dtypes)

    lr_image, lr_properties = read_images(reader, files.lr_images)
    check_case(lr_image, lr_properties, files.lr_images, num_channels=num_channels)
    pair = on_refined_grid(
        (hr_image, hr_seg, properties), (lr_image, lr_properties), scale, case=files.case
    )
    return RawCase(pair.hr_image, pair.hr_seg, pair.properties, dtypes, lr_image, pair.valid)
