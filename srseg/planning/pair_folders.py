"""Which files of three folders (LR, HR, labels) are one training case.

Nothing here imports torch or reads an image.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from srseg.preprocessing.case_files import CaseFiles
from srseg.preprocessing.matching import (
    check_channel_numbers,
    ending_of,
    image_files,
    match_by_name,
    missing_cases,
)

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PairFolders:
    """Where the files of a paired dataset come from.

    Attributes:
        lr: LR images, a file a channel: `<case>_0000.nii.gz`, or `<case>.nii.gz` for the only one.
        hr: HR images, named likewise.
        labels: label maps on the HR images' grids.
    """

    lr: Path
    hr: Path
    labels: Path


def match_pairs(
    folders: PairFolders, *, skip_incomplete: bool = False
) -> tuple[str, dict[str, CaseFiles]]:
    """Return the file ending that all files share, and the files of every case, sorted by name.

    Args:
        folders: where the files are.
        skip_incomplete: leave out cases that a folder lacks, with a warning, instead of refusing.

    Raises:
        FileNotFoundError: if a folder does not exist or holds no image file.
        ValueError: if file endings differ, a case lacks a side or a channel, or no name is shared.
    """
    sides = {"LR": folders.lr, "HR": folders.hr, "label": folders.labels}
    files = {side: image_files(folder) for side, folder in sides.items()}
    ending = _common_ending([file for some in files.values() for file in some])
    found = match_by_name(files)
    missing = missing_cases(found)
    if missing and not skip_incomplete:
        raise ValueError(f"cases are not complete: {missing}.")
    if missing:
        logger.warning("left out: %s", missing)
    shared = sorted(set.intersection(*map(set, found.values())))
    lr_images, hr_images, labels = (
        {case: some[case] for case in shared} for some in found.values()
    )
    for case, maps in labels.items():
        if len(maps) > 1:
            names = ", ".join(file.name for file in maps)
            raise ValueError(f"case {case} needs one label map, got {names} in {folders.labels}.")
    num_lr, num_hr = (check_channel_numbers(some) for some in (lr_images, hr_images))
    if num_lr != num_hr:
        raise ValueError(
            f"LR and HR images must have equally many channel files a case, got {num_lr} in "
            f"{folders.lr} and {num_hr} in {folders.hr}."
        )
    return ending, {
        case: CaseFiles(case, hr_images[case], labels[case][0], lr_images[case]) for case in shared
    }


def _common_ending(files: Sequence[Path]) -> str:
    counted = Counter(ending_of(file) for file in files)
    if len(counted) > 1:
        rare = min(counted, key=counted.__getitem__)
        example = next(file for file in files if ending_of(file) == rare)
        raise ValueError(
            f"all files of a dataset need one ending, got {', '.join(sorted(counted))} (for "
            f"example {example}); convert them to one."
        )
    return next(iter(counted))
