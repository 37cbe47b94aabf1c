"""One case from its files to its numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from srseg.evaluation.alignment import (
    RESAMPLING_HINT,
    check_refines,
    check_same_grid,
    covers_reference,
    crop_to_reference,
    scale_between,
)
from srseg.evaluation.context import Context
from srseg.geometry.grid import pad_to_multiple
from srseg.images.checks import read_images, read_segmentation
from srseg.metrics.image import data_range_of, lr_consistency_psnr
from srseg.metrics.summary import (
    mean_metrics,
    segmentation_metrics,
    sr_metrics_per_channel,
    voxel_tolerances_mm,
)
from srseg.preprocessing.paired import onto_grid

SIMULATED = "simulated from the HR images by the planned degradation"
NO_LR_IMAGE = "none"
COVERAGE = "reference_coverage"  # share of the predicted voxels that a reference judges


@dataclass(frozen=True)
class CaseFiles:
    """The files of one case; what is not evaluated is empty.

    Attributes:
        case: its name.
        reference: HR label map.
        prediction: label map.
        sr_images: predicted, one file a channel.
        hr_images: reference, one file a channel.
        lr_images: the input, one file a channel.
    """

    case: str
    reference: Path
    prediction: Path
    sr_images: tuple[Path, ...] = ()
    hr_images: tuple[Path, ...] = ()
    lr_images: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Reference:
    """A case's label map on the grid on which the case is compared.

    Attributes:
        labels: (1, Z, Y, X).
        properties: of that grid.
        own_shape: of the label map as read.
        own_properties: as read with it.
        is_resampled: whether that grid is the predicted one and not its own.
        valid: (Z, Y, X) bool, where a resampled reference is known; None is everywhere.
    """

    labels: np.ndarray
    properties: Mapping[str, Any]
    own_shape: tuple[int, ...]
    own_properties: Mapping[str, Any]
    is_resampled: bool = False
    valid: np.ndarray | None = None

    @property
    def num_known(self) -> int:
        """Voxels on which the prediction is judged."""
        return self.labels.size if self.valid is None else int(np.count_nonzero(self.valid))


@dataclass(frozen=True)
class CaseEvaluation:
    """Evaluates cases: call it with the files of one.

    Attributes:
        context: what is known of the predictions.
        resample_references: bring references whose voxels are not the predicted ones onto the
            predicted grid, in world coordinates; else they are refused.
    """

    context: Context
    resample_references: bool = False

    def __call__(self, files: CaseFiles) -> dict[str, Any]:
        """Return `{"segmentation": ..., "sr": ... or None}` of a case, as they go to JSON.

        Raises:
            ValueError: in one sentence that names the case, for files that do not belong together.
            FileNotFoundError: for a missing file.
        """
        segmentation, pred_properties = read_segmentation(
            self.context.reader_writer, files.prediction
        )
        num_predicted = segmentation.size
        reference = self._reference(files, segmentation.shape, pred_properties)
        if not reference.is_resampled:
            segmentation = crop_to_reference(
                segmentation,
                pred_properties,
                reference.labels.shape,
                reference.properties,
                what=f"case {files.case}: the prediction",
                scale=self.context.scale,
                hint=RESAMPLING_HINT,
            )
        spacing = [float(mm) for mm in reference.properties["spacing"]]
        tolerances = self._tolerances(spacing)
        row = {
            "case": files.case,
            "reference_file": str(files.reference),
            "prediction_file": str(files.prediction),
            "spacing_mm": spacing,
            "tolerances_mm": tolerances,
            "metrics": segmentation_metrics(
                segmentation[0],
                reference.labels[0],
                self.context.labels,
                spacing=spacing,
                tolerances_mm=tolerances,
                ignore_label=self.context.ignore_label,
                valid=reference.valid,
            ),
        }
        if self.resample_references:
            row[COVERAGE] = reference.num_known / num_predicted
        return {"segmentation": row, "sr": self._sr(files, reference) if files.sr_images else None}

    def _reference(
        self, files: CaseFiles, pred_shape: tuple[int, ...], pred_properties: Mapping[str, Any]
    ) -> Reference:
        """Return the case's reference, on the predicted grid if it must and may be moved there."""
        labels, properties = read_segmentation(self.context.reader_writer, files.reference)
        own = (labels.shape, properties)
        if not self.resample_references or covers_reference(
            pred_shape, pred_properties, *own, scale=self.context.scale
        ):
            return Reference(labels, properties, *own)
        labels, valid = onto_grid(
            labels,
            properties,
            pred_shape[-3:],
            pred_properties,
            interpolation="label",
            what=f"case {files.case}: the reference",
        )
        if valid is not None and not valid.any():
            raise ValueError(
                f"case {files.case}: the reference and the prediction have no voxel in common in "
                f"world coordinates; check that they belong together and are registered."
            )
        return Reference(labels, pred_properties, *own, is_resampled=True, valid=valid)

    def _tolerances(self, spacing: Sequence[float]) -> dict[str, float]:
        scale = self.context.scale
        if scale is None:  # without a scale every axis could be the refined one
            return {"hr_voxel": voxel_tolerances_mm(spacing, (1, 1, 1))["hr_voxel"]}
        return voxel_tolerances_mm(spacing, scale)

    def _sr(self, files: CaseFiles, reference: Reference) -> dict[str, Any] | None:
        reader, context = self.context.reader_writer, self.context
        case = f"case {files.case}"
        sr_image, sr_properties = read_images(reader, files.sr_images)
        hr_image = lr_image = None
        if files.hr_images:
            hr_image = self._hr_image(files, reference, sr_image, sr_properties)
        if files.lr_images:
            lr_image, lr_properties = read_images(reader, files.lr_images)
            scale = context.scale or scale_between(sr_image.shape, lr_image.shape)
            check_refines(sr_image.shape, sr_properties, lr_image.shape, lr_properties, scale, case)
        spacing = [float(mm) for mm in sr_properties["spacing"]]
        # What was predicted from another scan than the reference has not been made from it.
        can_simulate = context.can_degrade and not reference.is_resampled
        if lr_image is None and hr_image is not None and can_simulate:
            lr_image, source = context.degrade(hr_image, spacing), SIMULATED
            reach = pad_to_multiple(np.broadcast_to(0, hr_image.shape), context.scale).shape
            sr_image = sr_image[tuple(slice(n) for n in reach)]
        else:
            source = NO_LR_IMAGE if lr_image is None else str(files.lr_images[0].parent)

        def degrade(image: np.ndarray) -> np.ndarray:
            return context.degrade(image, spacing)

        if hr_image is None:
            if lr_image is None or not context.can_degrade:
                return None
            channels = _consistency(degrade(sr_image), lr_image)
        else:
            channels = sr_metrics_per_channel(
                sr_image,
                hr_image,
                lr_image,
                scale=context.scale,
                valid=reference.valid,
                degrade=degrade if context.can_degrade else None,
            )
        row = {"case": files.case, **_mean_of_channels(channels), "lr_images": source}
        return row if len(channels) == 1 else {**row, "channels": channels}

    def _hr_image(
        self,
        files: CaseFiles,
        reference: Reference,
        sr_image: np.ndarray,
        sr_properties: Mapping[str, Any],
    ) -> np.ndarray:
        """Return the HR image (C, Z, Y, X) on the grid on which the case is compared.

        Raises:
            ValueError: if it is not on the labels' grid, or the SR image not on the predicted one.
        """
        case = f"case {files.case}"
        hr_image, properties = read_images(self.context.reader_writer, files.hr_images)
        # The HR image must be on the references' own grid: cropping it could hide a mix-up.
        own = (reference.own_shape, reference.own_properties)
        check_same_grid(hr_image.shape, properties, *own, f"{case}: the HR image")
        what = f"{case}: the SR image"
        if not reference.is_resampled:
            scale = self.context.scale
            crop_to_reference(sr_image, sr_properties, *own, what=what, scale=scale)
            return hr_image
        common = (reference.labels.shape, reference.properties)
        check_same_grid(sr_image.shape, sr_properties, *common, what, other="prediction")
        hr_image, _ = onto_grid(
            hr_image,
            properties,
            sr_image.shape[1:],
            reference.properties,
            interpolation="bspline",
            what=f"{case}: the HR image",
        )
        return hr_image


def _consistency(redegraded: np.ndarray, lr_image: np.ndarray) -> list[dict[str, float]]:
    """Without an HR image the LR image's own range is the reference."""
    rows = []
    for here, there in zip(redegraded, lr_image, strict=True):
        wide = data_range_of(there)
        value = lr_consistency_psnr(here, there, data_range=wide) if wide > 0 else float("nan")
        rows.append({"lr_consistency_psnr_db": value})
    return rows


def _mean_of_channels(channels: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return dict(channels[0]) if len(channels) == 1 else mean_metrics(channels)
