"""Which files of a raw dataset belong to which case.

Nothing here imports torch: finding files and reading headers is done in every command.
"""

from __future__ import annotations

import re
from collections.abc import Collection, ItemsView, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from nnunetv2.utilities.utils import get_filenames_of_train_images_and_targets

IMAGES, LABELS, LR_IMAGES = "imagesTr", "labelsTr", "imagesLrTr"
UNLABELLED_IMAGES = "imagesUnTr"

_FILES_LOOKED_AT = 8


@dataclass(frozen=True)
class CaseFiles:
    """The raw files of one training case.

    Attributes:
        case: its name.
        images: HR image, one file a channel.
        label: label map on the HR image's grid; None for an unlabelled case.
        lr_images: the LR image of a real pair, one file a channel; None where it is simulated.
    """

    case: str
    images: tuple[Path, ...]
    label: Path | None
    lr_images: tuple[Path, ...] | None = None

    @property
    def all_files(self) -> tuple[Path, ...]:
        """All that are read: nnU-Net's TIFF reader takes the spacing from a JSON file beside."""
        labels = () if self.label is None else (self.label,)
        files = (*self.images, *labels, *(self.lr_images or ()))
        folders = sorted({file.parent for file in files})
        beside = (folder / f"{self.case}.json" for folder in folders)
        return (*files, *(file for file in beside if file.is_file()))


def training_files(raw_folder: Path, dataset_json: Mapping[str, Any]) -> dict[str, CaseFiles]:
    """Return the files of every training case of a raw dataset, by case, sorted.

    Args:
        raw_folder: `nnUNet_raw/DatasetXXX_Name`.
        dataset_json: its dataset.json; a "dataset" entry that lists files is followed.

    Raises:
        FileNotFoundError: if there are no cases, or a label or a pair's LR image is missing.
    """
    ending = dataset_json["file_ending"]
    images = training_images(raw_folder, dataset_json)
    if "dataset" in dataset_json:
        labels = {name: Path(files["label"]) for name, files in _listed(raw_folder, dataset_json)}
    else:
        labels = {name: raw_folder / LABELS / f"{name}{ending}" for name in images}
    cases = (CaseFiles(name, files, labels[name]) for name, files in images.items())
    return _complete(cases, raw_folder, ending)


def training_images(
    raw_folder: Path, dataset_json: Mapping[str, Any]
) -> dict[str, tuple[Path, ...]]:
    """Return the images of every training case, by case, sorted; there may be no labels.

    Args:
        raw_folder: as in `training_files`.
        dataset_json: as in `training_files`.

    Raises:
        FileNotFoundError: if there are no cases.
    """
    ending = dataset_json["file_ending"]
    if "dataset" in dataset_json:
        listed = _listed(raw_folder, dataset_json)
        images = {name: tuple(Path(file) for file in files["images"]) for name, files in listed}
    else:
        images = files_by_case(raw_folder / IMAGES, ending)
    if not images:
        raise FileNotFoundError(
            f"no training cases: {raw_folder / IMAGES} has no files named <case>_0000{ending}."
        )
    return dict(sorted(images.items()))


def _listed(raw_folder: Path, dataset_json: Mapping[str, Any]) -> ItemsView[str, Any]:
    """Return the cases that dataset.json lists by itself."""
    return get_filenames_of_train_images_and_targets(str(raw_folder), dict(dataset_json)).items()


def unlabelled_files(
    raw_folder: Path, dataset_json: Mapping[str, Any], labelled: Collection[str]
) -> dict[str, CaseFiles]:
    """Return the files of every case without labels (`imagesUnTr`), by case, sorted.

    Args:
        raw_folder: `nnUNet_raw/DatasetXXX_Name`; without the folder there is no such case.
        dataset_json: its dataset.json.
        labelled: names of the cases with labels.

    Raises:
        ValueError: if a file is not named as a channel of a case, or a case has labels as well.
        FileNotFoundError: if the folder holds no images, or a pair's LR image is missing.
    """
    folder, ending = raw_folder / UNLABELLED_IMAGES, dataset_json["file_ending"]
    if not folder.is_dir():
        return {}
    images = files_by_case(folder, ending)
    known = {file for files in images.values() for file in files}
    strays = sorted(set(folder.glob(f"*{ending}")) - known)
    if strays:
        raise ValueError(
            f"{strays[0]} must be named <case>_0000{ending}, with the number of its channel."
        )
    if not images:
        raise FileNotFoundError(
            f"{folder} has no files named <case>_0000{ending}; remove the folder or fill it."
        )
    both = sorted(set(images) & set(labelled))
    if both:
        raise ValueError(
            f"case {both[0]} has labels and lies in {UNLABELLED_IMAGES} as well; remove it from "
            f"{folder} or give it another name."
        )
    cases = (CaseFiles(name, images[name], None) for name in sorted(images))
    return _complete(cases, raw_folder, ending)


def _complete(cases: Iterable[CaseFiles], raw_folder: Path, ending: str) -> dict[str, CaseFiles]:
    """Return the cases by name, with their LR images where there are pairs; all files exist."""
    lr_folder = raw_folder / LR_IMAGES
    lr_images = files_by_case(lr_folder, ending) if lr_folder.is_dir() else None
    complete = {}
    for files in cases:
        name = files.case
        if lr_images is not None:
            if name not in lr_images:
                raise FileNotFoundError(
                    f"case {name} has no LR image {lr_folder / f'{name}_0000{ending}'}; with a "
                    f"folder {LR_IMAGES} every case needs one."
                )
            files = replace(files, lr_images=lr_images[name])
        for file in files.all_files:
            if not file.is_file():
                raise FileNotFoundError(f"case {name} has no file {file}.")
        complete[name] = files
    return complete


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


def most_voxels(cases: Collection[CaseFiles]) -> int:
    """Return about how many voxels the largest image has, from the headers of the largest files."""
    by_size = sorted(cases, key=lambda files: files.images[0].stat().st_size)
    return max(_num_voxels(files.images[0]) for files in by_size[-_FILES_LOOKED_AT:])


def _num_voxels(file: Path) -> int:
    if file.name.endswith((".nii", ".nii.gz")):
        try:
            return int(np.prod(nibabel.load(file).shape))
        except (OSError, ValueError, nibabel.filebasedimages.ImageFileError):
            pass  # a damaged file: reading it says so, with the case's name
    return 4 * file.stat().st_size  # other formats: as if compressed to a quarter byte a voxel
