"""One writer for each of nnU-Net's readers: a file that the same reader reads back equal.

nnU-Net's own writers cast to uint8 or uint16, so they cannot write an image.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import SimpleITK as sitk
import tifffile
from batchgenerators.utilities.file_and_folder_operations import save_json
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform
from nnunetv2.imageio.base_reader_writer import BaseReaderWriter
from nnunetv2.imageio.natural_image_reader_writer import NaturalImage2DIO
from nnunetv2.imageio.tif_reader_writer import Tiff3DIO
from skimage import io

ReaderWriter = BaseReaderWriter | type[BaseReaderWriter]
Writer = Callable[[np.ndarray, Path, Mapping[str, Any]], None]
RGB_CHANNELS = (3, 4)  # colour, colour with opacity


def writer_of(reader_writer: ReaderWriter, properties: Mapping[str, Any]) -> Writer:
    """Return what writes channels (C, Z, Y, X), a file, in the geometry of `properties`.

    Raises:
        ValueError: if the properties are of an unknown reader.
    """
    if "sitk_stuff" in properties:
        return write_itk
    if "nibabel_stuff" in properties:
        return write_nibabel
    kind = reader_writer if isinstance(reader_writer, type) else type(reader_writer)
    if issubclass(kind, Tiff3DIO):
        return write_tiff
    if issubclass(kind, NaturalImage2DIO):
        return write_natural
    raise ValueError(
        f"images of reader {kind.__name__} cannot be written; known: SimpleITKIO, "
        "SimpleITKIOWithReorient, NibabelIO, NibabelIOWithReorient, Tiff3DIO, NaturalImage2DIO."
    )


def _single(channels: np.ndarray, file: Path) -> np.ndarray:
    if len(channels) != 1:
        raise ValueError(f"'{file.name}' can hold one channel, got {len(channels)}.")
    return channels[0]


def write_itk(channels: np.ndarray, file: Path, properties: Mapping[str, Any]) -> None:
    """Write one channel by SimpleITK."""
    geometry = properties["sitk_stuff"]
    volume = _single(channels, file)
    if len(geometry["spacing"]) == 2:
        volume = _single(volume, file)
    image = sitk.GetImageFromArray(volume)
    image.SetSpacing(geometry["spacing"])
    image.SetOrigin(geometry["origin"])
    image.SetDirection(geometry["direction"])
    if "original_orientation" in geometry:  # SimpleITKIOWithReorient turned the axes to RAS
        image = sitk.DICOMOrient(image, geometry["original_orientation"])
    sitk.WriteImage(image, str(file), True)


def write_nibabel(channels: np.ndarray, file: Path, properties: Mapping[str, Any]) -> None:
    """Write one channel by nibabel."""
    geometry = properties["nibabel_stuff"]
    volume = _single(channels, file).transpose(2, 1, 0)
    if "reoriented_affine" not in geometry:
        nibabel.save(nibabel.Nifti1Image(volume, geometry["original_affine"]), str(file))
        return
    image = nibabel.Nifti1Image(volume, geometry["reoriented_affine"])
    of_file = io_orientation(geometry["original_affine"])
    image = image.as_reoriented(ornt_transform(axcodes2ornt("RAS"), of_file))
    nibabel.save(image, str(file))


def write_tiff(channels: np.ndarray, file: Path, _: Mapping[str, Any]) -> None:
    """Write one channel as a TIFF stack."""
    # Without `photometric` a volume 3 or 4 voxels wide would be taken for a colour image.
    volume = _single(channels, file)
    tifffile.imwrite(str(file), data=volume, compression="zlib", photometric="minisblack")


def write_tiff_spacing(file: Path, properties: Mapping[str, Any]) -> None:
    """Write the file beside a TIFF stack that holds its spacing."""
    save_json({"spacing": [float(mm) for mm in properties["spacing"]]}, str(file))


def can_hold_colour(dtype: np.dtype, file_ending: str) -> bool:
    """Return whether a colour image of `dtype` can be written: PNG takes 8 bits a channel."""
    return dtype == np.uint8 or file_ending.lower() != ".png"


def write_natural(channels: np.ndarray, file: Path, _: Mapping[str, Any]) -> None:
    """Write one slice, grey or in colour."""
    if channels.shape[1] != 1:
        raise ValueError(f"'{file.name}' can hold one slice, got {channels.shape[1]}.")
    if len(channels) != 1 and len(channels) not in RGB_CHANNELS:
        raise ValueError(f"'{file.name}' can hold 1, 3 or 4 channels, got {len(channels)}.")
    if len(channels) > 1 and not can_hold_colour(channels.dtype, file.suffix):
        raise ValueError(f"'{file.name}' can hold colours of 8 bits, got {channels.dtype}.")
    plane = channels[0, 0] if len(channels) == 1 else channels[:, 0].transpose(1, 2, 0)
    io.imsave(str(file), plane, check_contrast=False)
