"""Whether all of a NIfTI file is there."""

from __future__ import annotations

import gzip
from pathlib import Path

import nibabel
import numpy as np

_GZIP_SIZE_BYTES = 4  # the last bytes of a gzip stream: the uncompressed size modulo 2^32


def check_is_complete(image: nibabel.filebasedimages.FileBasedImage, file: Path) -> None:
    """Raise EOFError for a NIfTI file that ends too early, which ITK would fill with zeros."""
    size = int(np.prod(image.shape)) * image.get_data_dtype().itemsize + int(image.dataobj.offset)
    if file.suffix == ".nii":
        found = file.stat().st_size
        if found < size:
            raise EOFError(f"{found} of {size} bytes are there")
        return
    with file.open("rb") as opened:
        opened.seek(-_GZIP_SIZE_BYTES, 2)
        if int.from_bytes(opened.read(), "little") == size % 2**32:
            return  # complete; a flipped bit inside is noticed by the readers themselves
    with gzip.open(file) as opened:  # truncated, or in several gzip members: only reading tells
        found = 0
        while block := opened.read(1 << 20):
            found += len(block)
    if found < size:
        raise EOFError(f"{found} of {size} bytes are there")
