"""One case from its files to its numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from srseg.evaluation.context import Context
from srseg.geometry.grid import Grid, pad_to_multiple
from srseg.images.checks import describe_grid, grid_difference, read_images, read_segmentation
from srseg.images.properties import grid_of
from srseg.metrics.image import data_range_of, lr_consistency_psnr
from srseg.metrics.summary import (
    mean_metrics,
    segmentation_metrics,
    sr_metrics_per_channel,
    voxel_tolerances_mm,
)

SIMULATED = "simulated from the HR images by the planned degradation"
NO_LR_IMAGE = "none"


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
class CaseEvaluation:
    """Evaluates cases: call it with the files of one.

    Attributes:
        context: what is known of the predictions.
    """

    context: Context

    def __call__(self, files: CaseFiles) -> dict[str, Any]:
        """Return `{"segmentation": ..., "sr": ... or None}` of a case, as they go to JSON.

        Raises:
            ValueError: in one sentence that names the case, for files that do not belong together.
            FileNotFoundError: for a missing file.
        """
        reader = self.context.reader_writer
        reference, properties = read_segmentation(reader, files.reference)
        segmentation, pred_properties = read_segmentation(reader, files.prediction)
        segmentation = crop_to_reference(
            segmentation,
            pred_properties,
            reference.shape,
            properties,
            what=f"case {files.case}: the prediction",
            scale=self.context.scale,
        )
        spacing = [float(mm) for mm in properties["spacing"]]
        tolerances = self._tolerances(spacing)
        metrics = segmentation_metrics(
            segmentation[0],
            reference[0],
            self.context.labels,
            spacing=spacing,
            tolerances_mm=tolerances,
            ignore_label=self.context.ignore_label,
        )
        return {
            "segmentation": {
                "case": files.case,
                "reference_file": str(files.reference),
                "prediction_file": str(files.prediction),
                "spacing_mm": spacing,
                "tolerances_mm": tolerances,
                "metrics": metrics,
            },
            "sr": self._sr(files, reference.shape, properties) if files.sr_images else None,
        }

    def _tolerances(self, spacing: Sequence[float]) -> dict[str, float]:
        scale = self.context.scale
        if scale is None:  # without a scale every axis could be the refined one
            return {"hr_voxel": voxel_tolerances_mm(spacing, (1, 1, 1))["hr_voxel"]}
        return voxel_tolerances_mm(spacing, scale)

    def _sr(
        self, files: CaseFiles, reference_shape: tuple[int, ...], properties: Mapping[str, Any]
    ) -> dict[str, Any] | None:
        reader, context = self.context.reader_writer, self.context
        case = f"case {files.case}"
        sr_image, sr_properties = read_images(reader, files.sr_images)
        hr_image = lr_image = None
        if files.hr_images:
            hr_image, hr_properties = read_images(reader, files.hr_images)
            # The HR image must be on the references' own grid: cropping it could hide a mix-up.
            _check_same(
                hr_image.shape, hr_properties, reference_shape, properties, f"{case}: the HR image"
            )
            crop_to_reference(
                sr_image,
                sr_properties,
                hr_image.shape,
                hr_properties,
                what=f"{case}: the SR image",
                scale=context.scale,
            )
        if files.lr_images:
            lr_image, lr_properties = read_images(reader, files.lr_images)
            scale = context.scale or _scale_between(sr_image.shape, lr_image.shape)
            _check_refines(
                sr_image.shape, sr_properties, lr_image.shape, lr_properties, scale, case
            )
        spacing = [float(mm) for mm in sr_properties["spacing"]]
        if lr_image is None and hr_image is not None and context.can_degrade:
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
                degrade=degrade if context.can_degrade else None,
            )
        row = {"case": files.case, **_mean_of_channels(channels), "lr_images": source}
        return row if len(channels) == 1 else {**row, "channels": channels}


def crop_to_reference(
    array: np.ndarray,
    properties: Mapping[str, Any],
    reference_shape: Sequence[int],
    reference_properties: Mapping[str, Any],
    *,
    what: str,
    scale: Sequence[int] | None,
) -> np.ndarray:
    """Return `array` (C, Z, Y, X) without what reaches beyond its reference at the high end.

    A prediction covers its LR image, so it can reach further than an HR reference that the scale
    does not divide. Voxels must coincide: same spacing, direction and origin. Formats without
    geometry (PNG, TIFF) can only be trusted to reach less than one LR voxel further.

    Args:
        array: on the grid of `properties`.
        properties: as read.
        reference_shape: (..., Z, Y, X).
        reference_properties: as read with the reference.
        what: for the message, such as "case a: the prediction".
        scale: HR voxels per LR voxel (Z, Y, X), None where unknown.

    Raises:
        ValueError: naming both grids, if they are not so.
    """
    wanted = tuple(int(n) for n in reference_shape[-3:])
    further = [n - m for n, m in zip(array.shape[-3:], wanted, strict=True)]
    allowed: Sequence[float] = [float("inf")] * 3
    if grid_of(properties, array.shape) is None:
        allowed = scale or (1, 1, 1)
    if any(not 0 <= n < most for n, most in zip(further, allowed, strict=True)):
        _raise_different(array.shape, properties, reference_shape, reference_properties, what)
    _check_same(wanted, properties, wanted, reference_properties, what, shown=array.shape)
    return array[(..., *(slice(n) for n in wanted))]


def _check_same(
    shape: Sequence[int],
    properties: Mapping[str, Any],
    reference_shape: Sequence[int],
    reference_properties: Mapping[str, Any],
    what: str,
    *,
    shown: Sequence[int] | None = None,
) -> None:
    """Raise if voxels do not coincide; `shown` is the shape for the message, if another one."""
    grid = _grid(properties, shape)
    if grid_difference(grid, _grid(reference_properties, reference_shape)) is not None:
        _raise_different(shown or shape, properties, reference_shape, reference_properties, what)


def _raise_different(
    shape: Sequence[int],
    properties: Mapping[str, Any],
    reference_shape: Sequence[int],
    reference_properties: Mapping[str, Any],
    what: str,
) -> None:
    here, there = _grid(properties, shape), _grid(reference_properties, reference_shape)
    raise ValueError(
        f"{what} is not on its reference's grid: {describe_grid(here)}; the reference has "
        f"{describe_grid(there)}."
    )


def _grid(properties: Mapping[str, Any], shape: Sequence[int]) -> Grid:
    grid = grid_of(properties, shape)
    if grid is not None:
        return grid
    spacing = tuple(float(mm) for mm in properties["spacing"])  # PNG and TIFF know no more
    return Grid(tuple(int(n) for n in shape[-3:]), spacing)


def _check_refines(
    sr_shape: Sequence[int],
    sr_properties: Mapping[str, Any],
    lr_shape: Sequence[int],
    lr_properties: Mapping[str, Any],
    scale: Sequence[int],
    case: str,
) -> None:
    """Raise if the SR image is not on the refined LR grid; its padding may be missing.

    Without geometry only the shapes can tell: PNG's pixels are 1 wide on every grid.
    """
    sr_grid = _grid(sr_properties, sr_shape)
    padded = tuple(-(-n // s) * s for n, s in zip(sr_grid.shape, scale, strict=True))
    refined = _grid(lr_properties, lr_shape).refined(scale)
    has_geometry = grid_of(sr_properties, sr_shape) is not None
    if has_geometry:
        fits = grid_difference(replace(sr_grid, shape=padded), refined) is None
    else:
        fits = padded == refined.shape
    if not fits:
        raise ValueError(
            f"{case}: the SR image is not on the LR image's grid refined by "
            f"{'x'.join(str(s) for s in scale)}: {describe_grid(sr_grid)}; refined, the LR image "
            f"has {describe_grid(refined)}."
        )


def _scale_between(sr_shape: Sequence[int], lr_shape: Sequence[int]) -> tuple[int, ...]:
    pairs = zip(sr_shape[-3:], lr_shape[-3:], strict=True)
    return tuple(max(1, -(-n_sr // n_lr)) for n_sr, n_lr in pairs)


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
