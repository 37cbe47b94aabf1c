"""Images and segmentations to files, complete or not at all.

`write_image` writes for each of nnU-Net's readers such that the same reader gets the same array and
geometry back; label maps go through nnU-Net's own writers.
Everything is written into a temporary folder beside its place and renamed: a reader never meets
half a file, and a run that is killed leaves nothing that another tool would take for a case.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import SimpleITK as sitk
import tifffile

from srseg.images.compression import check_level, write_at_level
from srseg.images.writers import (
    RGB_CHANNELS,
    ReaderWriter,
    can_hold_colour,
    write_natural,
    write_tiff,
    write_tiff_spacing,
    writer_of,
)

DtypeLike = np.dtype | type | str | None
_ITK_COMPONENTS = {
    "8-bit signed integer": np.int8,
    "8-bit unsigned integer": np.uint8,
    "16-bit signed integer": np.int16,
    "16-bit unsigned integer": np.uint16,
    "32-bit signed integer": np.int32,
    "32-bit unsigned integer": np.uint32,
    "64-bit signed integer": np.int64,
    "64-bit unsigned integer": np.uint64,
    "32-bit float": np.float32,
    "64-bit float": np.float64,
}


def write_image(
    array: np.ndarray,
    file_truncated: str | Path,
    properties: Mapping[str, Any],
    *,
    reader_writer: ReaderWriter,
    file_ending: str,
    reference_dtype: DtypeLike | Sequence[DtypeLike] = None,
    num_files: int | None = None,
    compression: int | None = None,
) -> list[Path]:
    """Return the files that an image was written to, `<file_truncated>_0000<file_ending>` first.

    Args:
        array: (C, Z, Y, X) on the grid of `properties`.
        file_truncated: path without channel suffix and ending.
        properties: geometry in the form of the reader; nothing is read from them for PNG.
        reader_writer: one of nnU-Net's readers (class or object), or one with the same properties.
        file_ending: such as ".nii.gz".
        reference_dtype: of the input file, or a list with one for each channel. Values are rounded
            and clipped to an integer dtype; else, and for None, they are stored as float32 (PNG and
            BMP: as uint8). Channels that share a file are stored in the dtype that holds them all.
        num_files: how many files the channels are spread over. By default one file a channel,
            except that 3 or 4 channels of a natural image make one colour image, if they
            share a dtype, which in PNG files must be uint8.
        compression: level from 0 (none) to 9 of .nii.gz, .nrrd and .mha files; other formats
            ignore it, and None leaves it to the writing library.

    Raises:
        ValueError: if the array is not 4-D, its channels do not fill the files evenly or are not
            as many as the dtypes, a 2-D format gets several slices, the properties are of an
            unknown reader, or there is no such level.
    """
    check_level(compression)
    if array.ndim != 4:
        raise ValueError(f"an image must be (C, Z, Y, X), got shape {array.shape}.")
    write = writer_of(reader_writer, properties)
    file_truncated = Path(file_truncated)
    references = _per_channel(reference_dtype, len(array), file_truncated.name)
    if num_files is None:
        is_colour = (
            write is write_natural
            and len(array) in RGB_CHANNELS
            and len(set(references)) == 1
            and can_hold_colour(_dtype_for(references[0], file_ending), file_ending)
        )
        num_files = 1 if is_colour else len(array)
    if len(array) % num_files:
        raise ValueError(
            f"{len(array)} channels cannot be spread evenly over {num_files} files "
            f"({file_truncated.name})."
        )
    channels_a_file = len(array) // num_files
    with written_beside(file_truncated.parent) as folder:
        names = [f"{file_truncated.name}_{i:04d}{file_ending}" for i in range(num_files)]
        for i, name in enumerate(names):
            held = slice(i * channels_a_file, (i + 1) * channels_a_file)
            dtype = _dtype_for(_common_dtype(references[held]), file_ending)
            channels = _cast(array[held], dtype)
            write_at_level(
                lambda path, channels=channels: write(channels, path, properties),
                folder / name,
                compression,
            )
        if write is write_tiff:
            write_tiff_spacing(folder / f"{file_truncated.name}.json", properties)
    return [file_truncated.parent / name for name in names]


def write_segmentation(
    segmentation: np.ndarray,
    file: str | Path,
    properties: Mapping[str, Any],
    *,
    reader_writer: ReaderWriter,
    compression: int | None = None,
) -> Path:
    """Return the file that a label map was written to, by nnU-Net's own writer.

    Args:
        segmentation: (Z, Y, X) or (1, Z, Y, X) whole numbers.
        file: with ending.
        properties: geometry in the form of the reader.
        reader_writer: one of nnU-Net's readers, class or object.
        compression: as in `write_image`.

    Raises:
        ValueError: if the array has another shape, or there is no such level.
    """
    check_level(compression)
    if segmentation.ndim == 4 and len(segmentation) == 1:
        segmentation = segmentation[0]
    if segmentation.ndim != 3:
        raise ValueError(f"a segmentation must be (Z, Y, X), got shape {segmentation.shape}.")
    file = Path(file)
    writer = reader_writer() if isinstance(reader_writer, type) else reader_writer
    with written_beside(file.parent) as folder:
        write_at_level(
            lambda path: writer.write_seg(segmentation, str(path), dict(properties)),
            folder / file.name,
            compression,
        )
    return file


def stored_dtype(file: str | Path) -> np.dtype:
    """Return the dtype of the values in an image file, from its header where there is one.

    A NIfTI file with a slope holds floats whatever it is stored as.

    Raises:
        ValueError: if the file cannot be opened.
    """
    file = str(file)
    if file.lower().endswith((".tif", ".tiff")):  # ITK knows too few TIFF dialects
        try:
            with tifffile.TiffFile(file) as opened:
                return np.dtype(opened.series[0].dtype)
        except (OSError, tifffile.TiffFileError, IndexError) as error:
            raise ValueError(f"cannot read '{file}': {_one_line(error)}") from error
    reader = sitk.ImageFileReader()
    reader.SetFileName(file)
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        return _dtype_by_nibabel(file, error)
    name = sitk.GetPixelIDValueAsString(reader.GetPixelID())
    return np.dtype(_ITK_COMPONENTS.get(name.removeprefix("vector of "), np.float32))


def stored_dtypes(files: Sequence[str | Path], num_channels: int) -> list[np.dtype]:
    """Return the dtype of each channel of a case: a file's own for every channel that it holds.

    Args:
        files: of the case, channels in order; each holds equally many (one, or a colour image's).
            Where they cannot, all channels get the dtype that holds them all.
        num_channels: of the case.

    Raises:
        ValueError: if a file cannot be opened.
    """
    dtypes = [stored_dtype(file) for file in files]
    if num_channels % len(dtypes):
        return [np.result_type(*dtypes)] * num_channels
    return [dtype for dtype in dtypes for _ in range(num_channels // len(dtypes))]


def _dtype_by_nibabel(file: str, itk_error: RuntimeError) -> np.dtype:
    """ITK refuses NIfTI files whose axes are not at right angles; nibabel takes them."""
    try:
        image = nibabel.load(file)
    except (OSError, EOFError, nibabel.filebasedimages.ImageFileError) as error:
        raise ValueError(f"cannot read '{file}': {_one_line(itk_error)}") from error
    slope, intercept = image.dataobj.slope, image.dataobj.inter
    return np.dtype(np.float32) if (slope, intercept) != (1, 0) else image.get_data_dtype()


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


@contextmanager
def written_beside(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder; what stands in it at the end is renamed into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".tmp-", dir=folder) as temporary:
        yield Path(temporary)
        for file in sorted(Path(temporary).iterdir()):
            file.replace(folder / file.name)


def _per_channel(
    reference_dtype: DtypeLike | Sequence[DtypeLike], num_channels: int, name: str
) -> list[np.dtype | None]:
    """Return one reference dtype a channel; None stays None."""
    if not isinstance(reference_dtype, list | tuple):
        reference_dtype = [reference_dtype] * num_channels
    if len(reference_dtype) != num_channels:
        raise ValueError(
            f"{num_channels} channels need one dtype or {num_channels}, "
            f"got {len(reference_dtype)} ({name})."
        )
    return [None if dtype is None else np.dtype(dtype) for dtype in reference_dtype]


def _common_dtype(references: Sequence[np.dtype | None]) -> np.dtype | None:
    if any(reference is None for reference in references):  # np.dtype(float) == None is True
        return None
    return np.result_type(*references)


def _dtype_for(reference: np.dtype | None, file_ending: str) -> np.dtype:
    """Return the dtype to store, which the format must be able to hold."""
    if file_ending.lower() in (".png", ".bmp"):
        fits = reference is not None and reference == np.uint16
        return np.dtype(np.uint16 if fits and file_ending.lower() == ".png" else np.uint8)
    if reference is None:
        return np.dtype(np.float32)
    if reference.kind == "b":
        return np.dtype(np.uint8)
    if reference.kind not in "iu":
        return np.dtype(np.float32)
    # nibabel and older ITK refuse 64-bit integers, and no scanner fills them.
    return np.dtype(f"{reference.kind}4") if reference.itemsize > 4 else reference


def _cast(array: np.ndarray, dtype: np.dtype) -> np.ndarray:
    if dtype.kind == "f":
        return array.astype(dtype, copy=False)
    limits = np.iinfo(dtype)
    # float32 cannot hold the limits of 32-bit integers exactly, so these are clipped in float64.
    rounded = np.rint(array.astype(np.float64 if limits.bits > 16 else np.float32, copy=False))
    return np.clip(rounded, limits.min, limits.max).astype(dtype)
