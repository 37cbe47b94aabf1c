"""What the fingerprint knows of one case, from one reading of its files.

Nothing here may import torch, as nnU-Net's own extractor and cropping do: in every worker that
would take seconds and 300 MB, more than small cases themselves.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from nnunetv2.imageio.base_reader_writer import BaseReaderWriter

from srseg.images.checks import check_case, read_images, read_segmentation
from srseg.images.labels import declared_labels
from srseg.images.properties import grid_of
from srseg.planning.effective_resolution import duplicated_slices, effective_resolution
from srseg.planning.scale_rule import NO_SPACING
from srseg.planning.thickness import label_groups, structure_thickness
from srseg.preprocessing.case_files import CaseFiles, most_voxels

_BASE_BYTES = 200 * 2**20  # a process with the readers in it
_BYTES_PER_VALUE, _BYTES_PER_LABEL = 16, 40  # at the peak of an analysis, measured


@dataclass(frozen=True)
class CaseFingerprint:
    """What one case adds to the fingerprint.

    Attributes:
        spacing: mm (Z, Y, X), reader order.
        shape_after_crop: voxels of the box of non-zero voxels.
        relative_size_after_crop: of that box to the whole image.
        intensities: per channel a sample of foreground values; empty without foreground.
        block: plain values for the case's entry in the `srseg` block.
    """

    spacing: list[float]
    shape_after_crop: tuple[int, ...]
    relative_size_after_crop: float
    intensities: list[np.ndarray]
    block: dict[str, Any]


@dataclass(frozen=True)
class CaseAnalysis:
    """The analysis of a case, in a form that pickles to a worker."""

    reader_class: type[BaseReaderWriter]
    dataset_json: dict[str, Any]
    num_samples: int

    def __call__(self, files: CaseFiles) -> CaseFingerprint:
        """Return the fingerprint of one case.

        Raises:
            ValueError: in one sentence that names the case, for files that cannot be trained on.
            FileNotFoundError: for a missing file.
        """
        reader = self.reader_class()
        num_channels = len(self.dataset_json["channel_names"])
        image, properties = read_images(reader, files.images)
        segmentation, seg_properties = read_segmentation(reader, files.label)
        check_case(
            image,
            properties,
            files.images,
            num_channels=num_channels,
            segmentation=(segmentation, seg_properties),
            labels=declared_labels(self.dataset_json),
        )
        spacing = [float(mm) for mm in properties["spacing"]]
        groups = label_groups(self.dataset_json)
        thickness = structure_thickness(segmentation[0], groups, spacing)
        full_shape = image.shape[1:]
        box = (slice(None), *nonzero_box(image))
        image, segmentation = image[box], segmentation[box]
        intensities = foreground_samples(image, segmentation[0] > 0, self.num_samples)
        repeated = [duplicated_slices(channel) for channel in image]
        block = {
            **_grid_block(full_shape, spacing),
            "effective_resolution_mm": [
                effective_resolution(channel, spacing, slices)
                for channel, slices in zip(image, repeated, strict=True)
            ],
            "duplicated_slices": np.max(repeated, axis=0).tolist(),
            "slice_gap_mm": slice_gap_mm(files, spacing),
            "structure_thickness_mm": thickness,
            "num_foreground_voxels": int(np.count_nonzero(segmentation > 0)),
        }
        if files.lr_images is not None:
            lr_image, lr_properties = read_images(reader, files.lr_images)
            check_case(lr_image, lr_properties, files.lr_images, num_channels=num_channels)
            hr_spacing = spacing_along_lr_axes(
                (full_shape, properties), (lr_image.shape[1:], lr_properties)
            )
            lr_spacing = [float(mm) for mm in lr_properties["spacing"]]
            block["lr"] = {
                **_grid_block(lr_image.shape[1:], lr_spacing),
                "shape_after_crop": [axis.stop - axis.start for axis in nonzero_box(lr_image)],
                "hr_spacing_along_axes": hr_spacing,
            }
        return CaseFingerprint(
            spacing,
            image.shape[1:],
            float(np.prod(image.shape[1:]) / np.prod(full_shape)),
            intensities,
            block,
        )


def nonzero_box(image: np.ndarray) -> tuple[slice, slice, slice]:
    """Return nnU-Net's crop of (C, Z, Y, X): where any channel is not zero, all if none is.

    nnU-Net fills the holes of that mask first, which does not change its box.
    """
    mask = image.any(axis=0)
    box = []
    for axis, others in enumerate(((1, 2), (0, 2), (0, 1))):
        used = np.flatnonzero(mask.any(axis=others))
        first, last = (used[0], used[-1]) if used.size else (0, mask.shape[axis] - 1)
        box.append(slice(int(first), int(last) + 1))
    return tuple(box)


def foreground_samples(
    image: np.ndarray, foreground: np.ndarray, num_samples: int
) -> list[np.ndarray]:
    """Return nnU-Net's sample of every channel's foreground, drawn with replacement; float32.

    Args:
        image: (C, Z, Y, X).
        foreground: (Z, Y, X) bool; the samples are empty where nothing is True.
        num_samples: of each channel.
    """
    generator = np.random.RandomState(1234)  # nnU-Net's, so that its numbers come out
    samples = []
    for channel in image:
        values = channel[foreground]
        if values.size:
            values = generator.choice(values, num_samples, replace=True)
        samples.append(np.asarray(values, dtype=np.float32))
    return samples


def spacing_along_lr_axes(
    hr: tuple[Sequence[int], Mapping[str, Any]], lr: tuple[Sequence[int], Mapping[str, Any]]
) -> list[float]:
    """Return the HR image's spacing in mm along each axis (Z, Y, X) of the LR image.

    The two scans of a pair may have been stored in different orientations. Formats without
    geometry share the field of view.

    Args:
        hr: shape and properties of the HR image.
        lr: of the LR image.
    """
    hr_grid, lr_grid = (grid_of(properties, shape) for shape, properties in (hr, lr))
    if hr_grid is None or lr_grid is None:
        extents = (n * mm for n, mm in zip(lr[0], lr[1]["spacing"], strict=True))
        return [float(mm / n) for mm, n in zip(extents, hr[0], strict=True)]
    hr_axes = np.reshape(hr_grid.direction_xyz, (3, 3))
    lr_axes = np.reshape(lr_grid.direction_xyz, (3, 3))
    voxels_per_mm = (hr_axes.T @ lr_axes) / np.asarray(hr_grid.spacing[::-1])[:, None]
    return [float(mm) for mm in 1 / np.linalg.norm(voxels_per_mm, axis=0)[::-1]]


def slice_gap_mm(files: CaseFiles, spacing: Sequence[float]) -> float | None:
    """Return the gap between slices in mm, negative where they overlap, None where not known.

    NIfTI headers hold no slice thickness. A BIDS file beside the image (`<case>_0000.json` or
    `<case>.json`) may: `SliceThickness` and, else the coarsest spacing, `SpacingBetweenSlices`.
    """
    first = files.images[0]
    stem = first.name.split(".")[0]
    for name in dict.fromkeys((stem, stem[:-5] if stem[-5:-4] == "_" else stem, files.case)):
        sidecar = first.with_name(f"{name}.json")
        if not sidecar.is_file():
            continue
        try:
            content = json.loads(sidecar.read_text(encoding="utf-8"))
        except ValueError:
            continue  # not ours to judge: nothing but the gap depends on it
        if isinstance(content, Mapping) and _is_length(content.get("SliceThickness")):
            known = [mm for mm in spacing if mm != NO_SPACING]
            between = content.get("SpacingBetweenSlices")
            distance_mm = float(between) if _is_length(between) else max(known)
            return distance_mm - float(content["SliceThickness"])
    return None


def peak_bytes(cases: Collection[CaseFiles], num_channels: int) -> int:
    """Return about how much memory one analysis takes, from the headers of the largest files."""
    per_voxel = num_channels * _BYTES_PER_VALUE + _BYTES_PER_LABEL
    return int(_BASE_BYTES + most_voxels(cases) * per_voxel)


def _grid_block(shape: Sequence[int], spacing: Sequence[float]) -> dict[str, Any]:
    """Return spacing, shape, anisotropy and field of view; an axis of one 2-D slice has none."""
    extents = [
        None if mm == NO_SPACING and n == 1 else n * mm
        for n, mm in zip(shape, spacing, strict=True)
    ]
    known = [mm for mm, extent in zip(spacing, extents, strict=True) if extent is not None]
    return {
        "spacing": list(spacing),
        "shape": [int(n) for n in shape],
        "anisotropy": max(known) / min(known),
        "field_of_view_mm": extents,
    }


def _is_length(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value > 0
