"""Reading with checks: what is wrong with a case is said in one sentence that names the case.

nnU-Net's readers print and raise empty errors, or only warn where image and label lie apart; ITK
fills the missing part of a truncated NIfTI file with zeros without a word. Both end here.
"""

from __future__ import annotations

import itertools
import re
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import tifffile
from nnunetv2.imageio.base_reader_writer import BaseReaderWriter

from srseg.geometry.grid import Grid
from srseg.images.nifti import check_is_complete
from srseg.images.properties import Properties, grid_of

# What nnU-Net's readers and the libraries below them raise for a damaged file.
_READER_ERRORS = (
    AssertionError,
    EOFError,
    IndexError,
    KeyError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    nibabel.filebasedimages.ImageFileError,
    struct.error,
    tifffile.TiffFileError,
    zlib.error,
)
TOLERANCE_VOXELS = 0.1  # headers store float32, and tools round: less than this is one place


def case_name(file: str | Path, *, has_channel: bool = True) -> str:
    """Return the case that a file belongs to: `<case>_0000.nii.gz`, or `<case>.nii.gz` without."""
    channel = r"(_\d{4})?" if has_channel else ""
    return re.sub(channel + r"(\.nii)?(\.[^.]+)?$", "", Path(file).name, count=1)


def read_images(
    reader_writer: BaseReaderWriter, files: Sequence[str | Path]
) -> tuple[np.ndarray, Properties]:
    """Return the channels of a case (C, Z, Y, X) float32 and their properties.

    Args:
        reader_writer: one of nnU-Net's readers.
        files: one a channel, in order.

    Raises:
        FileNotFoundError: if a channel's file is missing.
        ValueError: if a file is corrupt, truncated or 4-D, holds NaN or infinite voxels that the
            reader hides, or the channels lie on different grids.
    """
    if not files:
        raise ValueError("a case needs at least one image file, got none.")
    case = case_name(files[0])
    channels, all_properties = [], []
    for file in files:
        if not Path(file).is_file():
            raise FileNotFoundError(f"case {case}: the channel file '{file}' is missing.")
        image, properties = _read(reader_writer.read_images, (str(file),), file, case)
        channels.append(image)
        all_properties.append(properties)
    for file, image, properties in zip(files, channels, all_properties, strict=True):
        difference = _difference(channels[0], all_properties[0], image, properties)
        if difference:
            raise ValueError(
                f"case {case}: channels '{Path(files[0]).name}' and "
                f"'{Path(file).name}' lie on different grids: {difference}."
            )
    return np.concatenate(channels), all_properties[0]


def read_segmentation(
    reader_writer: BaseReaderWriter, file: str | Path
) -> tuple[np.ndarray, Properties]:
    """Return a label map (1, Z, Y, X) and its properties.

    Raises:
        FileNotFoundError: if the file is missing.
        ValueError: if it is corrupt or truncated, or holds NaN or infinite voxels that the reader
            hides.
    """
    case = case_name(file, has_channel=False)
    if not Path(file).is_file():
        raise FileNotFoundError(f"case {case}: the label file '{file}' is missing.")
    return _read(reader_writer.read_seg, str(file), file, case)


def check_nifti(file: str | Path) -> None:
    """Refuse a NIfTI file of which ITK would read something else than what it holds.

    For files that ITK reads without nnU-Net's readers; other formats are left to ITK.

    Raises:
        ValueError: if it is corrupt or truncated, or holds NaN or infinite voxels.
    """
    file = Path(file)
    if not file.name.endswith((".nii", ".nii.gz")):
        return
    case = case_name(file)
    with _readers_errors(file, case):
        stored = nibabel.load(file)
        check_is_complete(stored, file)
        values = np.asanyarray(stored.dataobj) if stored.get_data_dtype().kind == "f" else None
    if values is not None:
        _check_finite(values, case, file)


def check_case(
    image: np.ndarray,
    properties: Mapping[str, Any],
    files: Sequence[str | Path],
    *,
    num_channels: int,
    scale: Sequence[int] | None = None,
    segmentation: tuple[np.ndarray, Mapping[str, Any]] | None = None,
    labels: set[int] | None = None,
) -> None:
    """Refuse a case that cannot be trained on or predicted.

    Args:
        image: (C, Z, Y, X) as read.
        properties: as read with it.
        files: its files, for the message.
        num_channels: that dataset.json declares.
        scale: (Z, Y, X) in the reader's order, for an HR image that is to be degraded.
        segmentation: what `read_segmentation` returned: the label map and its properties.
        labels: the values a label map may hold (`declared_labels`).

    Raises:
        ValueError: with one sentence that names the case, for the first thing that is wrong.
    """
    case = case_name(files[0])
    if len(image) != num_channels:
        raise ValueError(
            f"case {case} has {len(image)} channel(s), but dataset.json declares {num_channels}."
        )
    for channel, values in enumerate(image):
        file = files[channel if len(files) == len(image) else 0]
        _check_finite(values, case, Path(file))
    if scale is not None and any(n < s for n, s in zip(image.shape[1:], scale, strict=True)):
        raise ValueError(
            f"case {case}: the image of {_times(image.shape[1:])} voxels (Z, Y, X) is smaller than "
            f"the scale {_times(scale)}."
        )
    if segmentation is not None:
        _check_segmentation(case, image, properties, segmentation)
        if labels is not None:
            _check_labels(case, segmentation[0], labels)


def grid_difference(grid: Grid, other: Grid) -> str | None:
    """Return in words how two grids differ, or None if their voxels lie on each other.

    Places count as equal when no corner voxel's centre is further off than `TOLERANCE_VOXELS`
    of the smallest voxel edge.
    """
    if grid.shape != other.shape:
        return f"shape {_times(grid.shape)} against {_times(other.shape)} voxels"
    tolerance_mm = TOLERANCE_VOXELS * min(*grid.spacing, *other.spacing)
    corners = list(itertools.product(*((0, n - 1) for n in grid.shape)))
    apart_mm = max(_distance(grid.world_xyz(c), other.world_xyz(c)) for c in corners)
    edges_mm = np.max(np.abs(np.subtract(grid.spacing, other.spacing)))
    if max(apart_mm, edges_mm) <= tolerance_mm:
        return None
    parts = []
    if not np.allclose(grid.spacing, other.spacing, rtol=1e-3):
        parts.append(f"spacing {_times(grid.spacing)} against {_times(other.spacing)} mm")
    if not np.allclose(grid.direction_xyz, other.direction_xyz, atol=1e-3):
        parts.append(f"direction {_row(grid.direction_xyz)} against {_row(other.direction_xyz)}")
    if _distance(grid.origin_xyz, other.origin_xyz) > tolerance_mm or not parts:
        parts.append(
            f"origin (x, y, z) {_row(grid.origin_xyz)} against {_row(other.origin_xyz)} mm"
        )
    return ", ".join(parts)


def describe_grid(grid: Grid) -> str:
    """Return a grid in words: shape, spacing, origin and direction."""
    return (
        f"{_times(grid.shape)} voxels (Z, Y, X) of {_times(grid.spacing)} mm, origin (x, y, z) "
        f"{_row(grid.origin_xyz)} mm, direction {_row(grid.direction_xyz)}"
    )


def _read(
    read: Callable[[Any], tuple[np.ndarray, Properties]], argument: Any, file: str | Path, case: str
) -> tuple[np.ndarray, Properties]:
    file = Path(file)
    with _readers_errors(file, case):
        stored = nibabel.load(file) if file.name.endswith((".nii", ".nii.gz")) else None
        if stored is not None:
            check_is_complete(stored, file)
        image, properties = read(argument)
    if len(properties.get("sitk_stuff", {}).get("spacing", ())) > 3:
        raise ValueError(
            f"case {case}: '{file}' is a 4-D image; store each channel in a 3-D file of "
            "its own (_0000, _0001, ...)."
        )
    # ITK's NIfTI reader turns NaN and infinite voxels into 0 without a word
    is_itks = stored is not None and "sitk_stuff" in properties
    if is_itks and stored.get_data_dtype().kind == "f":
        _check_finite(np.asanyarray(stored.dataobj), case, file)
    return image, properties


@contextmanager
def _readers_errors(file: Path, case: str) -> Iterator[None]:
    """Turn what readers raise for a damaged file into a ValueError of one sentence."""
    try:
        yield
    except _READER_ERRORS as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(
            f"case {case}: cannot read '{file}', which may be corrupt or truncated "
            f"({reason[-200:]})."
        ) from error


def _check_finite(values: np.ndarray, case: str, file: Path) -> None:
    num_bad = values.size - int(np.count_nonzero(np.isfinite(values)))
    if num_bad:
        raise ValueError(
            f"case {case}: '{file.name}' holds {num_bad} NaN or infinite voxels; "
            "replace them by values that mean something in this modality."
        )


def _check_segmentation(
    case: str,
    image: np.ndarray,
    properties: Mapping[str, Any],
    segmentation: tuple[np.ndarray, Mapping[str, Any]],
) -> None:
    difference = _difference(image, properties, *segmentation)
    if difference:
        raise ValueError(f"case {case}: image and label lie on different grids: {difference}.")


def _check_labels(case: str, segmentation: np.ndarray, labels: set[int]) -> None:
    undeclared = ~np.isin(segmentation, sorted(labels))
    if undeclared.any():
        found = np.unique(segmentation[undeclared])
        shown = ", ".join(f"{v:g}" for v in found[:5]) + (", ..." if len(found) > 5 else "")
        raise ValueError(
            f"case {case}: the label map holds the value(s) {shown}, which dataset.json does not "
            f"declare; declared: {', '.join(str(v) for v in sorted(labels))}."
        )


def _difference(
    image: np.ndarray,
    properties: Mapping[str, Any],
    other_image: np.ndarray,
    other_properties: Mapping[str, Any],
) -> str | None:
    grid = _grid_or_spacing(image, properties)
    return grid_difference(grid, _grid_or_spacing(other_image, other_properties))


def _grid_or_spacing(image: np.ndarray, properties: Mapping[str, Any]) -> Grid:
    grid = grid_of(properties, image.shape)
    if grid is not None:
        return grid
    shape = tuple(int(n) for n in image.shape[-3:])  # PNG and TIFF know a spacing at most
    return Grid(shape, tuple(float(mm) for mm in properties["spacing"]))


def _distance(point: Sequence[float], other: Sequence[float]) -> float:
    return float(np.linalg.norm(np.subtract(point, other)))


def _times(values: Sequence[float]) -> str:
    return "x".join(f"{v:.4g}" for v in values)


def _row(values: Sequence[float]) -> str:
    return "(" + ", ".join(f"{v:.4g}" for v in values) + ")"
