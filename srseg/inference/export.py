"""Predictions as files: segmentation, SR image and, if asked for, probabilities."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from srseg.images.write import write_image, write_segmentation
from srseg.inference.native_grid import Prediction, Properties
from srseg.plans.managers import SRSegPlansManager
from srseg.preprocessing.lr_case import NATIVE_LR

SR_FOLDER = "sr"


def write_prediction(
    prediction: Prediction,
    case: str,
    out_folder: str | Path,
    *,
    hr_properties: Properties,
    plans_manager: SRSegPlansManager,
    file_ending: str,
    compression: int | None = None,
) -> None:
    """Write `case.nii.gz`, `sr/case_0000.nii.gz` and, if there are any, probabilities.

    Each file appears whole; the segmentation comes last, so its presence means "complete".
    `case.npz` and `case.pkl` are as nnU-Net writes them, so its ensembling takes them.

    Args:
        prediction: on the native HR grid.
        case: name of the case.
        out_folder: is made if it does not exist.
        hr_properties: geometry in the form of the plans' reader.
        plans_manager: for the reader.
        file_ending: such as ".nii.gz".
        compression: level of both images, as in `write_image`.
    """
    out_folder = Path(out_folder)
    out_folder.mkdir(parents=True, exist_ok=True)
    reader_writer = plans_manager.image_reader_writer_class()
    if prediction.sr_image is not None:
        write_image(
            prediction.sr_image,
            out_folder / SR_FOLDER / case,
            hr_properties,
            reader_writer=reader_writer,
            file_ending=file_ending,
            reference_dtype=hr_properties["srseg"]["dtype"],
            compression=compression,
        )
    if prediction.probabilities is not None:
        probabilities = prediction.probabilities

        def write_npz(stream: BinaryIO) -> None:
            np.savez_compressed(stream, probabilities=probabilities)

        _write_whole(out_folder / f"{case}.npz", write_npz)
        _write_whole(
            out_folder / f"{case}.pkl", lambda stream: pickle.dump(_plain(hr_properties), stream)
        )
    write_segmentation(
        prediction.segmentation,
        out_folder / f"{case}{file_ending}",
        hr_properties,
        reader_writer=reader_writer,
        compression=compression,
    )


def is_written(
    case: str, out_folder: str | Path, file_ending: str, *, with_sr: bool, with_probabilities: bool
) -> bool:
    """Return whether everything `write_prediction` writes for a case is there."""
    names = [f"{case}{file_ending}"]
    names += [f"{SR_FOLDER}/{case}_0000{file_ending}"] if with_sr else []
    names += [f"{case}.npz", f"{case}.pkl"] if with_probabilities else []
    return all((Path(out_folder) / name).is_file() for name in names)


def _plain(hr_properties: Properties) -> dict[str, Any]:
    """Return the properties without the input image."""
    frame = {k: v for k, v in hr_properties["srseg"].items() if k != NATIVE_LR}
    return {**hr_properties, "srseg": frame}


def _write_whole(file: Path, write: Callable[[BinaryIO], None]) -> None:
    """Let `write` fill a temporary file, then rename it: a reader never meets half a file."""
    temporary = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as stream:
            write(stream)
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)
