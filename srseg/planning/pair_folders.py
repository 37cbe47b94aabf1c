"""Which files of three folders (LR, HR, labels) are one case: by their names, never by position.

Nothing here imports torch or reads an image.
"""

from __future__ import annotations

import itertools
import logging
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nnunetv2.imageio.reader_writer_registry import LIST_OF_IO_CLASSES

from srseg.preprocessing.case_files import CaseFiles

logger = logging.getLogger(__name__)

_CHANNEL = re.compile(r"(.+)_(\d{4})")
_SHOWN_CASES = 5

Named = dict[str, tuple[Path, ...]]


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


def known_endings() -> tuple[str, ...]:
    """Return the file endings that nnU-Net's readers take, the longest first."""
    found = {e for reader in LIST_OF_IO_CLASSES for e in reader.supported_file_endings}
    return tuple(sorted(found, key=lambda ending: (-len(ending), ending)))


def match_pairs(
    folders: PairFolders, *, skip_incomplete: bool = False
) -> tuple[str, dict[str, CaseFiles]]:
    """Return the file ending that all files share, and the files of every case, sorted by name.

    A name such as `a_0001` may be the second channel of case `a` or a case of its own. Each folder
    is read the one way or the other, whichever gives the most cases that all three share.

    Args:
        folders: where the files are.
        skip_incomplete: leave out cases that a folder lacks, with a warning, instead of refusing.

    Raises:
        FileNotFoundError: if a folder does not exist or holds no image file.
        ValueError: if file endings differ, a case lacks a side or a channel, or no name is shared.
    """
    sides = {"LR": folders.lr, "HR": folders.hr, "label": folders.labels}
    files = {side: _image_files(folder) for side, folder in sides.items()}
    ending = _common_ending([file for some in files.values() for file in some])
    readings = [_readings(some, ending) for some in files.values()]
    found = max(itertools.product(*readings), key=_likelihood)
    shared = set.intersection(*map(set, found))
    if not shared:
        examples = ", ".join(f"{next(iter(n))} ({s})" for s, n in zip(sides, found, strict=True))
        raise ValueError(f"the folders share no case name; they hold for example {examples}.")
    missing = _missing(dict(zip(sides, found, strict=True)))
    if missing and not skip_incomplete:
        raise ValueError(f"cases are not complete: {missing}.")
    if missing:
        logger.warning("left out: %s", missing)
    lr_images, hr_images, labels = ({c: some[c] for c in sorted(shared)} for some in found)
    for case, maps in labels.items():
        if len(maps) > 1:
            names = ", ".join(file.name for file in maps)
            raise ValueError(f"case {case} needs one label map, got {names} in {folders.labels}.")
    num_channels = {_checked_channels(some, ending) for some in (lr_images, hr_images)}
    if len(num_channels) > 1:
        raise ValueError(
            f"LR and HR images must have equally many channel files a case, got "
            f"{_checked_channels(lr_images, ending)} in {folders.lr} and "
            f"{_checked_channels(hr_images, ending)} in {folders.hr}."
        )
    return ending, {
        case: CaseFiles(case, hr_images[case], labels[case][0], lr_images[case])
        for case in lr_images
    }


def _image_files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise FileNotFoundError(f"the folder {folder} does not exist.")
    files = [
        file
        for file in sorted(folder.iterdir())
        if file.is_file() and not file.name.startswith(".") and _ending(file) is not None
    ]
    if not files:
        raise FileNotFoundError(
            f"{folder} holds no image file; known endings: {', '.join(sorted(known_endings()))}."
        )
    return files


def _ending(file: Path) -> str | None:
    return next((ending for ending in known_endings() if file.name.endswith(ending)), None)


def _common_ending(files: Sequence[Path]) -> str:
    counted = Counter(_ending(file) for file in files)
    if len(counted) > 1:
        rare = min(counted, key=counted.__getitem__)
        example = next(file for file in files if _ending(file) == rare)
        raise ValueError(
            f"all files of a dataset need one ending, got {', '.join(sorted(counted))} (for "
            f"example {example}); convert them to one."
        )
    return next(iter(counted))


def _readings(files: Sequence[Path], ending: str) -> tuple[Named, Named]:
    """Return the files by case: with channel numbers, and with every name a case of its own."""
    stems = {file.name.removesuffix(ending): file for file in files}
    numbered: dict[str, list[Path]] = {}
    for stem, file in stems.items():
        match = _CHANNEL.fullmatch(stem)
        numbered.setdefault(match[1] if match else stem, []).append(file)
    return (
        {case: tuple(channels) for case, channels in numbered.items()},
        {stem: (file,) for stem, file in stems.items()},
    )


def _likelihood(found: Sequence[Named]) -> tuple[int, int]:
    """Return how many cases are shared, and how many folders hold no case without channel 0."""
    begin_at_0 = (
        all(
            channels[0].name.startswith((f"{case}_0000", f"{case}."))
            for case, channels in n.items()
        )
        for n in found
    )
    return len(set.intersection(*map(set, found))), sum(begin_at_0)


def _missing(found: Mapping[str, Named]) -> str:
    """Return in words which cases a side lacks, "" where none does."""
    all_cases = sorted(set().union(*found.values()))
    parts = []
    for side, some in found.items():
        lacking = [case for case in all_cases if case not in some]
        if lacking:
            more = ", ..." if len(lacking) > _SHOWN_CASES else ""
            shown = ", ".join(lacking[:_SHOWN_CASES])
            parts.append(f"no {side} file for {len(lacking)} of {len(all_cases)} ({shown}{more})")
    return "; ".join(parts)


def _checked_channels(images: Named, ending: str) -> int:
    """Return how many channel files every case has: numbers from 0 on, the same for all."""
    first = next(iter(images))
    wanted = len(images[first])
    for case, files in images.items():
        if len(files) != wanted:
            raise ValueError(
                f"case {case} has {len(files)} channel files in {files[0].parent}, but case "
                f"{first} has {wanted}."
            )
        expected = [f"{case}_{channel:04d}{ending}" for channel in range(len(files))]
        names = [file.name for file in files]
        if names not in (expected, [f"{case}{ending}"]):
            raise ValueError(
                f"case {case} must have the channels {', '.join(expected)}, got "
                f"{', '.join(names)} in {files[0].parent}."
            )
    return wanted
