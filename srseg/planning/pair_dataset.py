"""A raw nnU-Net dataset of true LR/HR pairs from three folders, checked before it is written.

The files are copied byte for byte under nnU-Net's names. What preprocessing would refuse later
(`srseg.preprocessing.paired`) is refused here, with the case, before anything is written.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from nnunetv2.imageio.base_reader_writer import BaseReaderWriter

from srseg.images.checks import check_case, read_images, read_segmentation
from srseg.images.properties import grid_of
from srseg.images.world import overlap_fraction
from srseg.planning.case_fingerprint import peak_bytes, spacing_along_lr_axes
from srseg.planning.json_file import write_json
from srseg.planning.pair_content import PairContent, PairWishes, described
from srseg.planning.pair_folders import PairFolders, match_pairs
from srseg.planning.raw_dataset import RawDataset, reader_writer_class
from srseg.preprocessing.case_files import IMAGES, LABELS, LR_IMAGES, CaseFiles
from srseg.preprocessing.paired import MIN_OVERLAP
from srseg.preprocessing.workers import for_each_case

logger = logging.getLogger(__name__)

_DATASET = re.compile(r"Dataset(\d{3})_[\w.-]+")


def new_dataset_name(dataset: str, name: str | None, raw_root: Path, *, overwrite: bool) -> str:
    """Return the name of the dataset to be made.

    Args:
        dataset: its number, or its whole name (`Dataset005_Heart`).
        name: what follows the number, where `dataset` is one.
        raw_root: nnUNet_raw.
        overwrite: whether a dataset of this very name may be there.

    Raises:
        ValueError: if no name comes out, or the number is in use.
    """
    if dataset.isdecimal() and name is not None:
        wanted = f"Dataset{int(dataset):03d}_{name}"
    elif name is None:
        wanted = dataset
    else:
        raise ValueError(f"-name goes with a number; -d {dataset} is a whole name already.")
    match = _DATASET.fullmatch(wanted)
    if match is None:
        raise ValueError(
            f"'{wanted}' cannot be the name of a dataset; give a number from 0 to 999 and a name "
            f"(-d 5 -name Heart), or both in one (-d Dataset005_Heart)."
        )
    taken = sorted(path.name for path in raw_root.glob(f"Dataset{match[1]}_*"))
    if [other for other in taken if other != wanted]:
        raise ValueError(f"the number {match[1]} is in use by {', '.join(taken)} in {raw_root}.")
    if taken and not overwrite:
        raise ValueError(f"{raw_root / wanted} exists; --overwrite replaces it.")
    return wanted


def convert_pairs(
    folders: PairFolders,
    target: Path,
    wishes: PairWishes,
    *,
    num_processes: int,
    show_progress: bool = True,
) -> dict[str, Any]:
    """Return the dataset.json of a raw dataset of pairs after writing it to `target`.

    It is written beside `target` under a name that nothing takes for a dataset, then renamed; a
    dataset that is there already is replaced in the end.

    Raises:
        FileNotFoundError: if a folder or its images are missing.
        ValueError: if files do not match or lie in `target`, or the labels cannot be declared.
        RuntimeError: with the case, for one that cannot be trained on.
    """
    for folder in (folders.lr, folders.hr, folders.labels):
        if folder.resolve().is_relative_to(target.resolve()):
            raise ValueError(
                f"{folder} lies in the dataset that --overwrite replaces; move it elsewhere."
            )
    ending, cases = match_pairs(folders, skip_incomplete=wishes.skip_incomplete)
    reader = reader_writer_class(RawDataset(target.name, target, {"file_ending": ending}, cases))
    num_files = len(next(iter(cases.values())).images)
    found = for_each_case(
        _PairCheck(reader),
        cases,
        num_processes=_fitting_processes(num_processes, cases, num_files),
        show_progress=show_progress,
        description="Checking pairs",
    )
    dataset_json = described(found, wishes) | {"numTraining": len(cases), "file_ending": ending}
    _write(target, cases, dataset_json, ending)
    return dataset_json


@dataclass(frozen=True)
class _PairCheck:
    """Reads and checks one case; pickles to a worker."""

    reader_class: type[BaseReaderWriter]

    def __call__(self, files: CaseFiles) -> PairContent:
        reader = self.reader_class()
        hr_image, hr_properties = read_images(reader, files.images)
        segmentation = read_segmentation(reader, files.label)
        lr_image, lr_properties = read_images(reader, files.lr_images)
        if len(lr_image) != len(hr_image):
            raise ValueError(
                f"case {files.case}: the LR image has {len(lr_image)} channel(s), the HR image "
                f"{len(hr_image)}."
            )
        num_channels = len(hr_image)
        check_case(
            hr_image, hr_properties, files.images, num_channels=num_channels,
            segmentation=segmentation,
        )  # fmt: skip
        check_case(lr_image, lr_properties, files.lr_images, num_channels=num_channels)
        _check_overlap(
            files.case, (hr_image.shape[1:], hr_properties), (lr_image.shape[1:], lr_properties)
        )
        return PairContent(num_channels, _whole_labels(files, segmentation[0]))


def _check_overlap(
    case: str, hr: tuple[Sequence[int], Mapping], lr: tuple[Sequence[int], Mapping]
) -> None:
    """Refuse a pair of which preprocessing would say that the HR image shows too little."""
    hr_grid, lr_grid = (grid_of(properties, shape) for shape, properties in (hr, lr))
    if hr_grid is None or lr_grid is None:
        if any(n % m for n, m in zip(hr[0], lr[0], strict=True)):
            raise ValueError(
                f"case {case}: in a format without geometry the HR image must have a whole "
                f"multiple of the LR image's voxels (Z, Y, X), got {tuple(hr[0])} and "
                f"{tuple(lr[0])}."
            )
        return
    hr_mm = spacing_along_lr_axes(hr, lr)
    scale = [max(1, round(mm / fine)) for mm, fine in zip(lr_grid.spacing, hr_mm, strict=True)]
    covered = overlap_fraction(lr_grid.refined(scale), hr_grid)
    if covered < MIN_OVERLAP:
        raise ValueError(
            f"case {case}: the HR image covers {covered:.0%} of the LR image's field of view, at "
            f"least {MIN_OVERLAP:.0%} is needed; check that the pair belongs together, or align "
            f"it (srseg_align)."
        )


def _whole_labels(files: CaseFiles, labels: np.ndarray) -> tuple[int, ...]:
    values = np.unique(labels)
    bad = values[(values != np.rint(values)) | (values < 0)]
    if bad.size:
        shown = ", ".join(f"{v:g}" for v in bad[:5]) + (", ..." if bad.size > 5 else "")
        raise ValueError(
            f"case {files.case}: labels must be whole numbers from 0 on, '{files.label.name}' "
            f"holds {shown}."
        )
    return tuple(int(value) for value in values)


def _fitting_processes(wanted: int, cases: Mapping[str, CaseFiles], num_channels: int) -> int:
    from srseg import environment

    # Two images of a pair are in memory at once.
    return environment.worker_count(2 * peak_bytes(cases.values(), num_channels), wanted)


def _write(
    target: Path, cases: Mapping[str, CaseFiles], dataset_json: Mapping[str, Any], ending: str
) -> None:
    unfinished = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    replaced = target.with_name(f".{target.name}.{os.getpid()}.old")
    try:
        for files in cases.values():
            for name, file in _copies(files, ending).items():
                (unfinished / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, unfinished / name)
        write_json(dataset_json, unfinished / "dataset.json")
        if target.exists():
            target.rename(replaced)
        try:
            unfinished.rename(target)
        except BaseException:
            if replaced.exists():
                replaced.rename(target)
            raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
        if target.exists():
            shutil.rmtree(replaced, ignore_errors=True)


def _copies(files: CaseFiles, ending: str) -> dict[str, Path]:
    """Return what is copied of a case: path in the dataset -> file."""
    targets = {f"{LABELS}/{files.case}{ending}": files.label}
    for folder, channels in ((IMAGES, files.images), (LR_IMAGES, files.lr_images)):
        for channel, file in enumerate(channels):
            targets[f"{folder}/{files.case}_{channel:04d}{ending}"] = file
    for target, file in list(targets.items()):  # nnU-Net's TIFF reader takes the spacing from it
        beside = file.with_name(f"{files.case}.json")
        if beside.is_file():
            targets[f"{Path(target).parent}/{beside.name}"] = beside
    return targets
