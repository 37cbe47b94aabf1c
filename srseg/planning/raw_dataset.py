"""A dataset in nnUNet_raw: its dataset.json and its cases, checked before anything is read."""

from __future__ import annotations

import json
import re
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from typing import Any

from nnunetv2.imageio.base_reader_writer import BaseReaderWriter
from nnunetv2.imageio.reader_writer_registry import (
    LIST_OF_IO_CLASSES,
    determine_reader_writer_from_dataset_json,
)

from srseg import environment
from srseg.images.labels import check_labels
from srseg.plans.datasets import dataset_name
from srseg.preprocessing.case_files import CaseFiles, training_files, unlabelled_files

_NEEDED_KEYS = ("channel_names", "labels", "file_ending")


@dataclass(frozen=True)
class RawDataset:
    """A raw dataset.

    Attributes:
        name: DatasetXXX_Name.
        folder: where it lies.
        dataset_json: its dataset.json.
        cases: the files of every training case with labels, by case, sorted.
        unlabelled: those of every case without; planning does not look at them.
    """

    name: str
    folder: Path
    dataset_json: dict[str, Any]
    cases: dict[str, CaseFiles]
    unlabelled: dict[str, CaseFiles] = field(default_factory=dict)

    @property
    def num_channels(self) -> int:
        """Channels of the images, as declared."""
        return len(self.dataset_json["channel_names"])

    @property
    def num_classes(self) -> int:
        """Channels of the logits."""
        # only here, since it imports torch, which reading cases does without
        from nnunetv2.utilities.label_handling.label_handling import LabelManager

        order = self.dataset_json.get("regions_class_order")
        return LabelManager(self.dataset_json["labels"], order).num_segmentation_heads

    @property
    def is_paired(self) -> bool:
        """Whether every case has a real LR image."""
        return all(files.lr_images is not None for files in self.cases.values())


def find_raw_dataset(dataset: int | str) -> RawDataset:
    """Return the dataset with this number or name.

    Raises:
        ValueError: if nnUNet_raw is not set, the dataset is unknown (the known ones are listed) or
            its dataset.json cannot be used, or a case without labels is misnamed.
        FileNotFoundError: if dataset.json, an image channel, a label or an LR image is missing.
    """
    raw_root = environment.required_folder("nnUNet_raw")
    name = dataset_name(dataset, raw_root)
    folder = raw_root / name
    dataset_json = read_dataset_json(folder)
    cases = training_files(folder, dataset_json)
    unlabelled = unlabelled_files(folder, dataset_json, cases)
    for some in (cases, unlabelled):
        _check_channel_files(some, len(dataset_json["channel_names"]))
    return RawDataset(name, folder, dataset_json, cases, unlabelled)


def read_dataset_json(folder: Path) -> dict[str, Any]:
    """Return the dataset.json of a raw dataset, checked.

    Raises:
        FileNotFoundError: if it does not exist.
        ValueError: if it is not JSON, lacks a key, or nnU-Net cannot use its labels.
    """
    file = folder / "dataset.json"
    if not file.is_file():
        raise FileNotFoundError(f"{folder} has no dataset.json, which every raw dataset needs.")
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file} is not valid JSON: {error}.") from error
    missing = [key for key in _NEEDED_KEYS if not isinstance(content, dict) or key not in content]
    if missing:
        raise ValueError(f"{file} lacks {', '.join(missing)}; it needs {', '.join(_NEEDED_KEYS)}.")
    try:
        check_labels(content)
    except ValueError as error:
        raise ValueError(f"the labels of {file} cannot be used: {error}.") from error
    return content


def check_integrity(raw: RawDataset) -> None:
    """Check dataset.json against the files; what is in the files the fingerprint checks.

    Raises:
        ValueError: if the number of cases is not `numTraining`.
    """
    declared = raw.dataset_json.get("numTraining")
    if declared != len(raw.cases):
        raise ValueError(
            f"dataset.json of {raw.name} declares numTraining {declared}, but there are "
            f"{len(raw.cases)} training cases."
        )


def reader_writer_class(raw: RawDataset) -> type[BaseReaderWriter]:
    """Return nnU-Net's reader for a dataset: the first one that can read its first case.

    Raises:
        ValueError: if nnU-Net has no reader for the file ending.
    """
    example = str(next(iter(raw.cases.values())).images[0])
    for file in (example, None):  # None: no reader can read it, which reading the case will explain
        try:
            with redirect_stdout(StringIO()), redirect_stderr(StringIO()):  # it prints tracebacks
                return determine_reader_writer_from_dataset_json(
                    raw.dataset_json, file, verbose=False
                )
        except RuntimeError:
            continue
    known = sorted({e for reader in LIST_OF_IO_CLASSES for e in reader.supported_file_endings})
    raise ValueError(
        f"{raw.name} has the file ending '{raw.dataset_json['file_ending']}', which nnU-Net cannot "
        f"read; known: {', '.join(known)}."
    )


def _check_channel_files(cases: dict[str, CaseFiles], num_channels: int) -> None:
    """Refuse a case without one of its channel files.

    Where every case has one file, the format may keep all channels in it (RGB): what is inside is
    checked when it is read.
    """
    for attribute in ("images", "lr_images"):
        found = {case: getattr(files, attribute) or () for case, files in cases.items()}
        if all(len(files) <= 1 for files in found.values()):
            continue
        for case, files in found.items():
            if len(files) >= num_channels:
                continue
            names = {file.name for file in files}
            stem, ending = re.fullmatch(r"(.+_)\d{4}(.*)|(.*)", files[0].name).group(1, 2)
            wanted = [f"{stem}{channel:04d}{ending}" for channel in range(num_channels)]
            missing = ", ".join(name for name in wanted if name not in names)
            raise FileNotFoundError(
                f"case {case} has {len(files)} of the {num_channels} channel files that "
                f"dataset.json declares; missing in {files[0].parent}: "
                f"{missing if stem else 'one or more'}."
            )
