"""From logits and SR image on the network's grid to files on the grid `scale` times the input's.

The way back mirrors preprocessing: resample to the native grid, un-crop, un-transpose, and for the
SR image undo the intensity map. Nothing is low-passed on the way: along an axis that shrinks back,
the network's grid was interpolated from the native one and holds nothing finer. All shapes come
from properties in HR geometry: at inference the reader's properties refined by
`upscale_properties`, in training-time validation the stored ones.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import torch
from acvl_utils.cropping_and_padding.bounding_boxes import insert_crop_into_image
from nnunetv2.utilities.label_handling.label_handling import LabelManager

from srseg.geometry.separable import apply_separable, interpolation_matrix, resample
from srseg.images.write import write_image, write_segmentation
from srseg.plans.managers import SRSegPlansManager
from srseg.preprocessing.intensity import maps_of
from srseg.preprocessing.lr_case import NATIVE_LR

SR_FOLDER = "sr"
_SLAB_BYTES = 2**28  # logits held at once on the native grid: memory does not grow with classes

Properties = Mapping[str, Any]


class Prediction(NamedTuple):
    """What was predicted for one image, on the grid `scale` times finer than the image's.

    Attributes:
        segmentation: (Z, Y, X) labels.
        sr_image: (C, Z, Y, X) float32 in the input's units, None for a network that only segments.
        spacing: mm (Z, Y, X) of both.
        probabilities: (classes or regions, Z, Y, X) float32 if asked for.
    """

    segmentation: np.ndarray
    sr_image: np.ndarray | None
    spacing: tuple[float, float, float]
    probabilities: np.ndarray | None = None


@torch.inference_mode()
def to_native_grid(
    logits: torch.Tensor,
    sr_image: torch.Tensor | None,
    hr_properties: Properties,
    plans_manager: SRSegPlansManager,
    label_manager: LabelManager,
    *,
    with_probabilities: bool = False,
) -> Prediction:
    """Return the prediction on the native HR grid, in the reader's axis order.

    Args:
        logits: (K, Z, Y, X) on the network's HR grid, plan order.
        sr_image: (C, Z, Y, X) there, in the normalised frame; None without SR head.
        hr_properties: of the preprocessed case, in HR geometry.
        plans_manager: for the axis order.
        label_manager: turns logits into labels (regions are respected).
        with_probabilities: whether to return probabilities too.
    """
    shape = tuple(hr_properties["shape_after_cropping_and_before_resampling"])
    probabilities = None
    if with_probabilities:
        native_logits = resample(logits.float(), shape, kind="linear", antialias=False)
        cropped = label_manager.apply_inference_nonlin(native_logits).cpu()
        segmentation = label_manager.convert_probabilities_to_segmentation(cropped)
        uncropped = label_manager.revert_cropping_on_probabilities(
            cropped,
            hr_properties["bbox_used_for_cropping"],
            hr_properties["shape_before_cropping"],
        )
        probabilities = _native_order(uncropped.numpy(), plans_manager)
        segmentation = segmentation.numpy()
    else:
        segmentation = _labels_by_slab(logits, shape, label_manager)
    dtype = np.uint8 if max(label_manager.all_labels) < 256 else np.uint16
    return Prediction(
        _native_order(_uncrop(segmentation.astype(dtype), hr_properties), plans_manager),
        None if sr_image is None else _native_sr(sr_image, shape, hr_properties, plans_manager),
        tuple(float(mm) for mm in hr_properties["spacing"]),
        probabilities,
    )


def write_prediction(
    prediction: Prediction,
    case: str,
    out_folder: str | Path,
    *,
    hr_properties: Properties,
    plans_manager: SRSegPlansManager,
    file_ending: str,
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
    )


def is_written(
    case: str, out_folder: str | Path, file_ending: str, *, with_sr: bool, with_probabilities: bool
) -> bool:
    """Return whether everything `write_prediction` writes for a case is there."""
    names = [f"{case}{file_ending}"]
    names += [f"{SR_FOLDER}/{case}_0000{file_ending}"] if with_sr else []
    names += [f"{case}.npz", f"{case}.pkl"] if with_probabilities else []
    return all((Path(out_folder) / name).is_file() for name in names)


def _labels_by_slab(
    logits: torch.Tensor, shape: Sequence[int], label_manager: LabelManager
) -> np.ndarray:
    """Return the (Z, Y, X) labels of `logits` resampled linearly to `shape`, slab after slab.

    A slab needs the rows of the first axis' matrix that make it, and the logits these rows read.
    """
    first, *others = (
        None if old == new else interpolation_matrix(old, new, kind="linear", antialias=False)
        for old, new in zip(logits.shape[1:], shape, strict=True)
    )
    rows = max(1, _SLAB_BYTES // (4 * len(logits) * int(np.prod(shape[1:]))))
    slabs = []
    for start in range(0, shape[0], rows):
        stop = min(start + rows, shape[0])
        if first is None:
            part, matrix = logits[:, start:stop], None
        else:
            read = torch.nonzero(first[start:stop].any(dim=0)).flatten()
            low, high = int(read[0]), int(read[-1]) + 1
            part, matrix = logits[:, low:high], first[start:stop, low:high]
        slab = apply_separable(part.float(), [matrix, *others])
        if label_manager.has_regions:
            labels = label_manager.convert_logits_to_segmentation(slab)
        else:
            labels = slab.max(0).indices  # argmax(0) takes ten times as long on a CPU
        slabs.append(labels.to(torch.int16).cpu().numpy())
    return np.concatenate(slabs)


def _native_sr(
    sr_image: torch.Tensor,
    shape: Sequence[int],
    hr_properties: Properties,
    plans_manager: SRSegPlansManager,
) -> np.ndarray:
    """Return the (C, Z, Y, X) float32 SR image in raw units; what was cropped off is raw zero.

    Preprocessing crops to the box around all non-zero voxels, so outside it the input is zero.
    Where it resampled the input, only what the network added to it is resampled back, onto the
    interpolated input itself: detail of an input finer than planned, and slices of a coarser one,
    would not survive the way to the plan's grid and back.
    """
    sr_image = sr_image.float()
    frame = hr_properties["srseg"]
    if NATIVE_LR in frame:
        native_lr = torch.from_numpy(frame[NATIVE_LR]).to(sr_image.device)
        read = resample(resample(native_lr, frame["lr_shape"]), sr_image.shape[1:])
        added = resample(sr_image - read, shape, antialias=False)
        native = (resample(native_lr, shape) + added).cpu().numpy()
    else:
        native = resample(sr_image, shape, antialias=False).cpu().numpy()
    maps = maps_of(hr_properties)
    raw = np.stack([m.invert(channel) for m, channel in zip(maps, native, strict=True)])
    return _native_order(_uncrop(raw, hr_properties), plans_manager)


def _plain(hr_properties: Properties) -> dict[str, Any]:
    """Return the properties without the input image."""
    frame = {k: v for k, v in hr_properties["srseg"].items() if k != NATIVE_LR}
    return {**hr_properties, "srseg": frame}


def _uncrop(crop: np.ndarray, hr_properties: Properties) -> np.ndarray:
    """Return `crop` (..., Z, Y, X) in its place in an array of zeros.

    The box of a training case may reach beyond the image, where its HR image was padded.
    """
    shape = (*crop.shape[:-3], *hr_properties["shape_before_cropping"])
    return insert_crop_into_image(
        np.zeros(shape, dtype=crop.dtype), crop, hr_properties["bbox_used_for_cropping"]
    )


def _native_order(array: np.ndarray, plans_manager: SRSegPlansManager) -> np.ndarray:
    """Return a (..., Z, Y, X) array in plan order in the reader's axis order."""
    leading = array.ndim - 3
    order = [*range(leading), *(leading + axis for axis in plans_manager.transpose_backward)]
    return np.ascontiguousarray(array.transpose(order))


def _write_whole(file: Path, write: Callable[[BinaryIO], None]) -> None:
    """Let `write` fill a temporary file, then rename it: a reader never meets half a file."""
    temporary = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as stream:
            write(stream)
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)
