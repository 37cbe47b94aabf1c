"""Which cases there are to predict: files of a folder, one part of them, those not done yet."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Case:
    """The files of one case, a channel each (or all channels in one colour image)."""

    name: str
    files: tuple[Path, ...]


def list_cases(folder: str | Path, file_ending: str) -> list[Case]:
    """Return the cases of a folder in nnU-Net's naming, `<case>_0000.nii.gz` and so on.

    Args:
        folder: of LR images.
        file_ending: of dataset.json; other files are ignored.

    Raises:
        FileNotFoundError: if there is no such folder, or no file of that ending in it.
        ValueError: if a file has no channel number, or a case's channels are not 0, 1, 2, ...
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"the input folder {folder} does not exist.")
    files = sorted(
        file
        for file in folder.iterdir()
        if file.name.endswith(file_ending) and file.is_file() and not file.name.startswith(".")
    )
    if not files:
        endings = sorted({"".join(f.suffixes[-2:]) for f in folder.iterdir() if f.is_file()})
        raise FileNotFoundError(
            f"the input folder {folder} has no files that end in {file_ending}, as the training "
            f"data does; it has: {', '.join(endings[:5]) or 'no files'}."
        )
    return _grouped(files, file_ending)


def cases_of_files(list_of_lists: Iterable[Sequence[str | Path]], file_ending: str) -> list[Case]:
    """Return the cases of explicit lists of files, the channels of a case in order.

    Raises:
        ValueError: if a list is empty, a name lacks its channel number, or a case comes twice.
    """
    cases = []
    for files in list_of_lists:
        if not files:
            raise ValueError("a case needs at least one image file, got an empty list.")
        paths = tuple(Path(file) for file in files)
        cases.append(Case(_split(paths[0].name, file_ending)[0], paths))
    names = [case.name for case in cases]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"these cases come more than once: {', '.join(twice)}.")
    return cases


def check_num_files(cases: Iterable[Case], num_channels: int) -> None:
    """Refuse cases that do not have one file per channel, before any is read.

    Raises:
        ValueError: naming the first such case, what it has and what the model takes.
    """
    for case in cases:
        if len(case.files) != num_channels:
            got = ", ".join(file.name for file in case.files)
            raise ValueError(
                f"case {case.name} has {len(case.files)} channel file(s) ({got}), but the model "
                f"takes {num_channels}."
            )


def select_part(cases: Sequence[Case], part_id: int, num_parts: int) -> list[Case]:
    """Return every `num_parts`-th case from `part_id` on: the parts of parallel calls are disjoint.

    Raises:
        ValueError: if `part_id` is not in 0 ... num_parts - 1.
    """
    if num_parts < 1 or not 0 <= part_id < num_parts:
        raise ValueError(
            f"part_id must be from 0 to num_parts - 1, got part_id {part_id} of {num_parts}."
        )
    return list(cases[part_id::num_parts])


def _grouped(files: Sequence[Path], file_ending: str) -> list[Case]:
    channels: dict[str, dict[int, Path]] = defaultdict(dict)
    for file in files:
        name, channel = _split(file.name, file_ending)
        channels[name][channel] = file
    for name, of_case in channels.items():
        missing = sorted(set(range(max(of_case) + 1)) - set(of_case))
        if missing:
            raise ValueError(
                f"case {name} lacks channel(s) {', '.join(f'_{c:04d}' for c in missing)}; "
                f"there is: {', '.join(file.name for file in of_case.values())}."
            )
    return [
        Case(name, tuple(of_case[c] for c in sorted(of_case)))
        for name, of_case in sorted(channels.items())
    ]


def _split(file_name: str, file_ending: str) -> tuple[str, int]:
    """Return case and channel of a file name."""
    match = re.fullmatch(rf"(.+)_(\d{{4}}){re.escape(file_ending)}", file_name)
    if match is None:
        raise ValueError(
            f"the file '{file_name}' is not named <case>_0000{file_ending}: the case, then the "
            "channel as four digits."
        )
    return match[1], int(match[2])
