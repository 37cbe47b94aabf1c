"""The cases that methods are compared on: a fold's own validation cases, or a test folder's."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from srseg.preprocessing.case_files import files_by_case, training_files


@dataclass(frozen=True)
class CompareCase:
    """The files of one case.

    Attributes:
        name: of the case.
        label: the true label map.
        hr_images: true HR image, one file a channel; empty where there is none.
        lr_images: what methods read, one file a channel; empty where it is to be simulated.
    """

    name: str
    label: Path
    hr_images: tuple[Path, ...] = ()
    lr_images: tuple[Path, ...] = ()


def fold_cases(
    raw_folder: Path, splits_file: Path, fold: str, dataset_json: Mapping[str, Any]
) -> list[CompareCase]:
    """Return the validation cases of a fold, sorted, with the files of the raw dataset.

    Args:
        raw_folder: `nnUNet_raw/DatasetXXX_Name`.
        splits_file: `splits_final.json` of the preprocessed dataset.
        fold: a number.
        dataset_json: of the dataset.

    Raises:
        FileNotFoundError: if the split file or a raw file is missing.
        ValueError: for a fold without validation cases.
    """
    if not fold.isdecimal():
        raise ValueError(
            f"fold {fold} has no validation cases of its own; compare on test files by -i and -gt."
        )
    if not splits_file.is_file():
        raise FileNotFoundError(f"there is no {splits_file}, which says what is in fold {fold}.")
    splits = json.loads(splits_file.read_text(encoding="utf-8"))
    if int(fold) >= len(splits):
        known = ", ".join(str(number) for number in range(len(splits)))
        raise ValueError(f"unknown fold '{fold}'; known: {known}.")
    files = training_files(raw_folder, dataset_json)
    wanted = sorted(splits[int(fold)]["val"])
    missing = [case for case in wanted if case not in files]
    if missing:
        raise FileNotFoundError(
            f"{len(missing)} validation case(s) of fold {fold} are not in {raw_folder}: "
            f"{', '.join(missing[:5])}."
        )
    return [
        CompareCase(case, files[case].label, files[case].images, files[case].lr_images or ())
        for case in wanted
    ]


def folder_cases(
    lr_folder: Path, labels: Path, hr_images: Path | None, file_ending: str
) -> list[CompareCase]:
    """Return the cases of a folder of LR images, sorted.

    Args:
        lr_folder: of `<case>_0000<ending>` files.
        labels: folder of true label maps `<case><ending>`.
        hr_images: folder of true HR images; None for none.
        file_ending: of all of them.

    Raises:
        FileNotFoundError: if a folder, or a case's label map or HR image, is missing.
    """
    for folder in (labels, hr_images):
        if folder is not None and not folder.is_dir():
            raise FileNotFoundError(f"the folder {folder} does not exist.")
    lr_files = files_by_case(lr_folder, file_ending)
    if not lr_files:
        raise FileNotFoundError(f"{lr_folder} has no files named <case>_0000{file_ending}.")
    hr_files = {} if hr_images is None else files_by_case(hr_images, file_ending)
    cases = []
    for case in sorted(lr_files):
        label = labels / f"{case}{file_ending}"
        if not label.is_file():
            raise FileNotFoundError(f"case {case} has no label map {label}.")
        if hr_images is not None and case not in hr_files:
            raise FileNotFoundError(f"case {case} has no HR image in {hr_images}.")
        cases.append(CompareCase(case, label, hr_files.get(case, ()), lr_files[case]))
    return cases
