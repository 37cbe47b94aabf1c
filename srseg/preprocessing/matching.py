"""Which files of several folders are one case: by their names, never by their position.

Nothing here imports torch or reads an image.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from nnunetv2.imageio.reader_writer_registry import LIST_OF_IO_CLASSES

Named = dict[str, tuple[Path, ...]]

_CHANNEL = re.compile(r"(.+)_(\d{4})")
_SHOWN_CASES = 5


def known_endings() -> tuple[str, ...]:
    """Return the file endings that nnU-Net's readers take, the longest first."""
    found = {e for reader in LIST_OF_IO_CLASSES for e in reader.supported_file_endings}
    return tuple(sorted(found, key=lambda ending: (-len(ending), ending)))


def ending_of(file: Path) -> str | None:
    """Return a file's ending among those that nnU-Net's readers take, None for other files."""
    return next((ending for ending in known_endings() if file.name.endswith(ending)), None)


def image_files(folder: Path) -> list[Path]:
    """Return the image files of a folder, sorted; hidden and other files are left alone.

    Raises:
        FileNotFoundError: if the folder does not exist or holds none.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"the folder {folder} does not exist.")
    files = [
        file
        for file in sorted(folder.iterdir())
        if file.is_file() and not file.name.startswith(".") and ending_of(file) is not None
    ]
    if not files:
        raise FileNotFoundError(
            f"{folder} holds no image file; known endings: {', '.join(sorted(known_endings()))}."
        )
    return files


def match_by_name(sides: Mapping[str, Sequence[Path]]) -> dict[str, Named]:
    """Return the files of every side by case.

    A name such as `a_0001` may be the second channel of case `a` or a case of its own. Each side
    is read the one way or the other, whichever gives the most cases that all share; a side alone
    has channels where their numbers begin at 0.

    Args:
        sides: what a side is called in messages -> its image files.

    Raises:
        ValueError: if no case is on all sides.
    """
    readings = [_readings(files) for files in sides.values()]
    found = max(itertools.product(*readings), key=_likelihood)
    if not set.intersection(*map(set, found)):
        examples = ", ".join(f"{next(iter(n))} ({s})" for s, n in zip(sides, found, strict=True))
        raise ValueError(f"the folders share no case name; they hold for example {examples}.")
    return dict(zip(sides, found, strict=True))


def missing_cases(found: Mapping[str, Named]) -> str:
    """Return in one line which cases a side lacks, "" where none does."""
    all_cases = sorted(set().union(*found.values()))
    parts = []
    for side, some in found.items():
        lacking = [case for case in all_cases if case not in some]
        if lacking:
            more = ", ..." if len(lacking) > _SHOWN_CASES else ""
            shown = ", ".join(lacking[:_SHOWN_CASES])
            parts.append(f"no {side} file for {len(lacking)} of {len(all_cases)} ({shown}{more})")
    return "; ".join(parts)


def check_channel_numbers(images: Named) -> int:
    """Return how many channel files every case has: numbers from 0 on, the same for all.

    Raises:
        ValueError: naming the case that is different, or has other numbers.
    """
    first = next(iter(images))
    wanted = len(images[first])
    for case, files in images.items():
        if len(files) != wanted:
            raise ValueError(
                f"case {case} has {len(files)} channel files in {files[0].parent}, but case "
                f"{first} has {wanted}."
            )
        ending = ending_of(files[0])
        expected = [f"{case}_{channel:04d}{ending}" for channel in range(len(files))]
        names = [file.name for file in files]
        if names not in (expected, [f"{case}{ending}"]):
            raise ValueError(
                f"case {case} must have the channels {', '.join(expected)}, got "
                f"{', '.join(names)} in {files[0].parent}."
            )
    return wanted


def stem_of(file: Path) -> str:
    """Return an image file's name without its ending."""
    return file.name.removesuffix(ending_of(file) or "")


def _readings(files: Sequence[Path]) -> tuple[Named, Named]:
    """Return the files by case: with channel numbers, and with every name a case of its own."""
    numbered: dict[str, list[Path]] = {}
    for file in files:
        stem = stem_of(file)
        match = _CHANNEL.fullmatch(stem)
        numbered.setdefault(match[1] if match else stem, []).append(file)
    return (
        {case: tuple(channels) for case, channels in numbered.items()},
        {stem_of(file): (file,) for file in files},
    )


def _likelihood(found: Sequence[Named]) -> tuple[int, int]:
    """Return how many cases are shared, and how many sides hold no case without channel 0."""
    begin_at_0 = (
        all(files[0].name.startswith((f"{case}_0000", f"{case}.")) for case, files in some.items())
        for some in found
    )
    shared = len(set.intersection(*map(set, found))) if len(found) > 1 else 0
    return shared, sum(begin_at_0)
