"""What is read from the files of a training case."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from nnunetv2.imageio.base_reader_writer import BaseReaderWriter

from srseg.images.checks import check_case, read_images, read_segmentation
from srseg.images.labels import declared_labels
from srseg.images.write import stored_dtypes
from srseg.plans.managers import SRSegConfigurationManager, SRSegPlansManager
from srseg.preprocessing.case_files import CaseFiles
from srseg.preprocessing.paired import on_refined_grid


@dataclass(frozen=True)
class RawCase:
    """A training case as read, in the reader's axis order.

    Attributes:
        hr_image: (C, Z, Y, X).
        hr_seg: (1, Z, Y, X) labels; all background in an unlabelled case.
        properties: of the HR image, as nnU-Net's readers return them.
        dtypes: name of the dtype that the HR image's file stores, for each channel.
        lr_image: (C, z, y, x) of a real pair, whose grid refined by the scale is the HR grid; None
            where the LR image is to be simulated.
        valid: (Z, Y, X) bool, False where a pair's HR image does not reach; None where it is
            everywhere.
        labelled: whether `hr_seg` says anything.
    """

    hr_image: np.ndarray
    hr_seg: np.ndarray
    properties: dict[str, Any]
    dtypes: Sequence[str]
    lr_image: np.ndarray | None = None
    valid: np.ndarray | None = None
    labelled: bool = True


def read_raw_case(
    files: CaseFiles,
    plans_manager: SRSegPlansManager,
    configuration_manager: SRSegConfigurationManager,
    dataset_json: Mapping[str, Any],
) -> RawCase:
    """Return a training case as read and checked; a real pair on one pair of grids.

    Raises:
        ValueError: in one sentence that names the case, for files that cannot be trained on.
        FileNotFoundError: for a missing file.
    """
    reader = plans_manager.image_reader_writer_class()
    scale = plans_manager.native(configuration_manager.scale_3d)
    num_channels = len(dataset_json["channel_names"])
    is_pair = files.lr_images is not None

    hr_image, properties = read_images(reader, files.images)
    hr_seg, seg_properties = _read_labels(reader, files.label, hr_image, properties)
    check_case(
        hr_image,
        properties,
        files.images,
        num_channels=num_channels,
        scale=None if is_pair else scale,
        segmentation=(hr_seg, seg_properties),
        labels=declared_labels(dataset_json),
    )
    dtypes = [str(dtype) for dtype in stored_dtypes(files.images, num_channels)]
    if not is_pair:
        return RawCase(hr_image, hr_seg, properties, dtypes, labelled=files.label is not None)

    lr_image, lr_properties = read_images(reader, files.lr_images)
    check_case(lr_image, lr_properties, files.lr_images, num_channels=num_channels)
    pair = on_refined_grid(
        (hr_image, hr_seg, properties), (lr_image, lr_properties), scale, case=files.case
    )
    return RawCase(
        pair.hr_image,
        pair.hr_seg,
        pair.properties,
        dtypes,
        lr_image,
        pair.valid,
        labelled=files.label is not None,
    )


def _read_labels(
    reader: BaseReaderWriter,
    file: Path | None,
    hr_image: np.ndarray,
    properties: Mapping[str, Any],
) -> tuple[np.ndarray, Mapping[str, Any]]:
    """Return labels (1, Z, Y, X) and their properties: background everywhere without a file."""
    if file is None:
        return np.zeros((1, *hr_image.shape[1:]), dtype=np.uint8), properties
    return read_segmentation(reader, file)
