"""Rows without weights: what interpolation makes of the LR image, and of the true labels on LR.

The labels are an answer to "what would a perfect segmentation of the LR grid give?": the true label
map is brought to the LR grid (argmax of the area-averaged one-hot) and back. They read the truth,
so these rows are marked, and their Dice is no method's.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from srseg.degradation.degradation import Degradation
from srseg.degradation.spec import AxisDegradation, DegradationSpec
from srseg.evaluation.compare.cases import CompareCase
from srseg.evaluation.compare.stamp import complete, content_of, files_identity, stamped_folder
from srseg.evaluation.context import Context
from srseg.evaluation.folder import SR_FOLDER
from srseg.geometry.grid import pad_to_multiple
from srseg.geometry.separable import resample
from srseg.images.checks import read_images, read_segmentation
from srseg.images.properties import refine_properties
from srseg.images.write import stored_dtypes, write_image, write_segmentation
from srseg.metrics.baselines import upsample_cubic
from srseg.preprocessing.paired import onto_grid
from srseg.preprocessing.workers import for_each_case

# HR voxels that samples are off their place, to decide ties; not equal, so that diagonals have none
_HAIRS = (1.0e-3, 0.7e-3, 0.5e-3)


def _kernel(kind: str) -> Callable[[np.ndarray, Sequence[int]], np.ndarray]:
    def interpolate(lr_image: np.ndarray, scale: Sequence[int]) -> np.ndarray:
        shape = [n * s for n, s in zip(lr_image.shape[-3:], scale, strict=True)]
        image = torch.from_numpy(np.ascontiguousarray(lr_image, dtype=np.float32))
        return resample(image, shape, kind=kind).numpy()

    return interpolate


INTERPOLATIONS: dict[str, Callable[[np.ndarray, Sequence[int]], np.ndarray]] = {
    "interpolate_cubic": _kernel("cubic"),
    "interpolate_linear": _kernel("linear"),
    "interpolate_nearest": _kernel("nearest"),
    "interpolate_bspline": upsample_cubic,
}


@dataclass(frozen=True)
class Interpolate:
    """Writes the interpolated image and labels of a case, as a prediction; returns the seconds.

    Attributes:
        name: one of `INTERPOLATIONS`.
        context: with plans.
        folder: for `<case><ending>` and `sr/<case>_0000<ending>`.
    """

    name: str
    context: Context
    folder: Path

    def __call__(self, case: CompareCase) -> float:
        """Write one case; return how many seconds that took."""
        begin = time.perf_counter()
        reader, scale = self.context.reader_writer, self.context.scale
        lr_image, lr_properties = read_images(reader, case.lr_images)
        properties = refine_properties(lr_properties, scale)
        write_image(
            INTERPOLATIONS[self.name](lr_image, scale),
            self.folder / SR_FOLDER / case.name,
            properties,
            reader_writer=reader,
            file_ending=self.context.file_ending,
            reference_dtype=stored_dtypes(case.lr_images, len(lr_image)),
            num_files=len(case.lr_images),
        )
        shape = [n * s for n, s in zip(lr_image.shape[1:], scale, strict=True)]
        labels = self._true_labels(case, shape, properties)
        nearest = self.name == "interpolate_nearest"
        write_segmentation(
            labels_through_lr(labels, scale, nearest=nearest, ignore=self.context.ignore_label),
            self.folder / f"{case.name}{self.context.file_ending}",
            properties,
            reader_writer=reader,
        )
        return time.perf_counter() - begin

    def _true_labels(self, case: CompareCase, shape: Sequence[int], properties: dict) -> np.ndarray:
        """Return the true label map (Z, Y, X) on the LR image's refined grid."""
        what = f"case {case.name}: the label map"
        labels, own = read_segmentation(self.context.reader_writer, case.label)
        padded = pad_to_multiple(labels, self.context.scale)
        if padded.shape[1:] == tuple(shape) and self.context.can_degrade:
            return padded[0]
        labels, _ = onto_grid(labels, own, shape, properties, interpolation="label", what=what)
        return labels[0]


def labels_through_lr(
    hr_labels: np.ndarray, scale: Sequence[int], *, nearest: bool, ignore: int | None = None
) -> np.ndarray:
    """Return what is left of a label map on the LR grid, back on its own grid.

    An LR voxel takes the label that fills most of it. Surfaces along HR faces cut it into halves as
    often as not, and to give these to the background would shrink everything by a tenth. A tie is
    decided a hair towards the high end of the axes: one face of a structure wins, the other loses.

    Args:
        hr_labels: (Z, Y, X) whole numbers; `scale` divides the shape.
        scale: whole numbers (Z, Y, X).
        nearest: repeat LR labels; else their one-hot is interpolated linearly.
        ignore: a value that never wins: nobody says what is there.
    """
    values = [int(v) for v in np.unique(hr_labels) if v != ignore] or [0]
    spec = DegradationSpec((AxisDegradation("area"),) * 3)
    average = Degradation(spec, scale, (1.0, 1.0, 1.0)).linear
    # one label after the other: a one-hot of all would take memory that grows with the labels
    lr_labels = _strongest((v, _lr_share(_mask(hr_labels, v), average)) for v in values)
    if nearest:
        for axis, factor in enumerate(scale):
            lr_labels = lr_labels.repeat(factor, axis)
        return lr_labels
    shape = hr_labels.shape
    return _strongest((v, resample(_mask(lr_labels, v), shape, kind="linear")) for v in values)


def _lr_share(mask: torch.Tensor, average: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
    """Return which share of each LR voxel a mask fills, a hair towards the axes' high end."""
    share = average(mask)
    for axis, hair in enumerate(_HAIRS):
        if mask.shape[axis] > share.shape[axis]:
            share = share + hair * average(torch.gradient(mask, dim=axis)[0])
    return share


def _mask(labels: np.ndarray, value: int) -> torch.Tensor:
    return torch.from_numpy((labels == value).astype(np.float32))


def _strongest(shares: Iterable[tuple[int, torch.Tensor]]) -> np.ndarray:
    """Return the label with the largest share at each voxel; of equal ones the lowest."""
    best, labels = None, None
    for value, share in shares:
        if best is None:
            best, labels = share, torch.full(share.shape, value, dtype=torch.int16)
            continue
        wins = share > best
        best, labels = torch.where(wins, share, best), torch.where(wins, value, labels)
    return labels.numpy()


def interpolated(
    name: str,
    cases: Sequence[CompareCase],
    context: Context,
    folder: Path,
    num_processes: int,
) -> float:
    """Return the seconds per case of an interpolation after all cases are written to `folder`.

    A folder that is complete, and made from the same files, is left as it is.
    """
    files = [file for case in cases for file in (*case.lr_images, case.label)]
    identity = {"method": name, "files": files_identity(files), "scale": context.scale}
    known = content_of(folder, identity)
    if known is None:
        stamped_folder(folder, identity)
        seconds = for_each_case(
            Interpolate(name, context, folder),
            {case.name: case for case in cases},
            num_processes=num_processes,
            description=f"Writing {name}",
        )
        known = {"seconds_per_case": float(np.mean(list(seconds.values())))}
        complete(folder, identity, known)
    return known["seconds_per_case"]
