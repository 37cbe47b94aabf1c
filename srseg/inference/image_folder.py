"""Which images a folder holds and what reads them, where no dataset.json says so."""

from __future__ import annotations

import re
from pathlib import Path

from nnunetv2.imageio.base_reader_writer import BaseReaderWriter
from nnunetv2.imageio.reader_writer_registry import determine_reader_writer_from_file_ending


def file_ending_of(folder: Path) -> str:
    """Return the ending of a folder's files named `<case>_0000<ending>`.

    Raises:
        FileNotFoundError: if there is no such folder or file.
        ValueError: if the endings differ.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"the input folder {folder} does not exist.")
    pattern = re.compile(r".+_\d{4}(\.nii\.gz|\.[A-Za-z0-9]+)")
    names = (file.name for file in folder.iterdir() if file.is_file())
    matches = (pattern.fullmatch(name) for name in names if not name.startswith("."))
    endings = sorted({match[1] for match in matches if match})
    if not endings:
        raise FileNotFoundError(
            f"the folder {folder} has no images: files named <case>_0000.nii.gz or the like."
        )
    if len(endings) > 1:
        raise ValueError(f"the images in {folder} have different endings: {', '.join(endings)}.")
    return endings[0]


def reader_of_ending(ending: str) -> type[BaseReaderWriter]:
    """Return nnU-Net's first reader for a file ending.

    Raises:
        ValueError: if there is none.
    """
    try:
        return determine_reader_writer_from_file_ending(ending, verbose=False)
    except RuntimeError as error:
        raise ValueError(f"no reader of nnU-Net knows files that end in '{ending}'.") from error
