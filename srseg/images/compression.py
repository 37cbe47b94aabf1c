"""How strongly image files are compressed, whichever library writes them.

ITK 5.4 gzips NIfTI at level 6 whatever level it is asked for, nibabel at 1, and nnU-Net's writers
of label maps take no level. So at a level that was asked for, a `.nii.gz` is written as `.nii` and
gzipped here, and `.nrrd` and `.mha`, whose levels ITK does follow, are written a second time. Left
alone, the libraries do well (docs/performance.md, "Compression of the output").
"""

from __future__ import annotations

import gzip
import shutil
from collections.abc import Callable
from pathlib import Path

import SimpleITK as sitk

LEVELS = range(10)  # zlib's, 0 stores
_ITK_ENDINGS = (".nrrd", ".mha")
_CHUNK_BYTES = 2**20


def check_level(level: int | None) -> None:
    """Raise a ValueError unless `level` is a whole number from 0 to 9, or None."""
    if level is None:
        return
    if isinstance(level, bool) or not isinstance(level, int) or level not in LEVELS:
        raise ValueError(
            f"the compression level must be a whole number from {LEVELS[0]} (none) to "
            f"{LEVELS[-1]} (smallest), got {level!r}."
        )


def write_at_level(write: Callable[[Path], object], file: Path, level: int | None) -> None:
    """Let `write` write a file, and compress it at `level`.

    Formats other than .nii.gz, .nrrd and .mha stay as `write` makes them.

    Args:
        write: takes the path, which ends in `.nii` where `file` ends in `.nii.gz`.
        file: with ending. While it is written, a `.nii` of the same name may lie beside it.
        level: 0 (none) to 9; None leaves it to `write`.
    """
    name = file.name.lower()
    if level is not None and name.endswith(".nii.gz"):
        plain = file.with_suffix("")
        write(plain)
        _gzip(plain, file, level)
        plain.unlink()
        return
    write(file)
    if level is not None and name.endswith(_ITK_ENDINGS):
        sitk.WriteImage(sitk.ReadImage(str(file)), str(file), level > 0, level)


def _gzip(plain: Path, file: Path, level: int) -> None:
    """Compress a file; without name and time in it, equal content gives equal bytes."""
    with (
        plain.open("rb") as source,
        file.open("wb") as raw,
        gzip.GzipFile("", "wb", level, raw, mtime=0) as target,
    ):
        shutil.copyfileobj(source, target, _CHUNK_BYTES)
