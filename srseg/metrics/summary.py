"""All numbers of one case as a flat table row, from arrays; and the mean of such rows.

Evaluation of files and validation during training share this. Units stand in the names; values
that do not exist for a case (no such label, no LR image, a constant reference) are NaN, and means
are over the values there are, so count them with `count_valid`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from nnunetv2.evaluation.evaluate_predictions import region_or_label_to_mask

from srseg.geometry.grid import pad_to_multiple
from srseg.metrics.baselines import BASELINES
from srseg.metrics.image import (
    body_mask,
    hfen,
    intensity_range,
    lr_consistency_psnr,
    mean_absolute_error,
    mean_inside,
    nmse,
    psnr,
    ssim_map,
)
from srseg.metrics.segmentation import dice, hd95, nsd, surface_distances, volume_error

Label = int | tuple[int, ...]
_NAN = float("nan")


def voxel_tolerances_mm(hr_spacing: Sequence[float], scale: Sequence[int]) -> dict[str, float]:
    """Return the tolerances at which NSD is given: one HR and one LR voxel, in mm.

    The smallest HR and the smallest LR spacing among the axes that are refined (all axes where
    none is): within one LR voxel is what the input resolves, within one HR voxel is what
    super-resolution can win.

    Args:
        hr_spacing: mm (Z, Y, X).
        scale: whole numbers, same order.
    """
    pairs = list(zip(hr_spacing, scale, strict=True))
    refined = [(mm, s) for mm, s in pairs if s > 1] or pairs
    return {
        "hr_voxel": float(min(mm for mm, _ in refined)),
        "lr_voxel": float(min(mm * s for mm, s in refined)),
    }


def segmentation_metrics(
    segmentation: np.ndarray,
    reference: np.ndarray,
    labels: Sequence[Label],
    *,
    spacing: Sequence[float],
    tolerances_mm: Mapping[str, float],
    ignore_label: int | None = None,
    valid: np.ndarray | None = None,
) -> dict[Label, dict[str, float]]:
    """Return the metrics of one case for each label or region.

    nnU-Net's own (Dice, IoU, counts of voxels), and `nsd_<name>` for each tolerance, `hd95_mm` and
    the signed `volume_error_percent`. Where the reference has `ignore_label` or is not `valid` both
    masks count as background, so they are closed there as they are at the volume's border.

    Args:
        segmentation: (Z, Y, X) label map.
        reference: same shape.
        labels: whole numbers, or tuples of them for regions.
        spacing: mm (Z, Y, X).
        tolerances_mm: by name; see `voxel_tolerances_mm`.
        ignore_label: of the dataset, if it has one.
        valid: (Z, Y, X) bool, where the reference is known; None is everywhere. Only its bounding
            box is looked at.

    Raises:
        ValueError: if the shapes differ.
    """
    if segmentation.shape != reference.shape:
        raise ValueError(
            f"prediction and reference differ in shape: {segmentation.shape} and {reference.shape}."
        )
    _check_valid(valid, reference.shape)
    box, counted = _known_part(valid)
    segmentation, reference = segmentation[box], reference[box]
    if ignore_label is not None:
        annotated = reference != ignore_label
        counted = annotated if counted is None else annotated & counted
    metrics = {}
    for label in labels:
        predicted = region_or_label_to_mask(segmentation, label)
        true = region_or_label_to_mask(reference, label)
        num_voxels = reference.size
        if counted is not None:
            predicted, true = predicted & counted, true & counted
            num_voxels = int(np.count_nonzero(counted))
        distances = surface_distances(predicted, true, spacing)
        metrics[label] = {
            **_overlap(predicted, true, num_voxels),
            **{f"nsd_{k}": nsd(distances, tolerance_mm=mm) for k, mm in tolerances_mm.items()},
            "hd95_mm": hd95(distances),
            "volume_error_percent": 100 * volume_error(predicted, true),
        }
    return metrics


def sr_metrics(
    sr_image: np.ndarray,
    hr_image: np.ndarray,
    lr_image: np.ndarray | None = None,
    *,
    scale: Sequence[int] | None = None,
    valid: np.ndarray | None = None,
    degrade: Callable[[np.ndarray], np.ndarray] | None = None,
) -> dict[str, float]:
    """Return the SR metrics of one case, the mean over its channels.

    PSNR and SSIM in the body and on the whole image with the reference's data range, error norms
    and, with an LR image, the same for cubic B-spline and sinc interpolation of it (`cubic_...`,
    `sinc_...`) with the gain in PSNR over each. With `degrade` too, the PSNR of the degraded SR
    image against the LR image.

    Args:
        sr_image: (C, Z, Y, X); what reaches beyond the reference (padding) is left out.
        hr_image: the reference (C, Z, Y, X).
        lr_image: the network's input (C, z, y, x), in the same units.
        scale: HR voxels per LR voxel (Z, Y, X); by default what the shapes say.
        valid: (Z, Y, X) bool, where the reference is known; None is everywhere.
        degrade: the forward model, (C, Z, Y, X) to (C, z, y, x).

    Raises:
        ValueError: if the shapes do not fit.
    """
    channels = sr_metrics_per_channel(
        sr_image, hr_image, lr_image, scale=scale, valid=valid, degrade=degrade
    )
    return {key: float(np.mean([channel[key] for channel in channels])) for key in channels[0]}


def sr_metrics_per_channel(
    sr_image: np.ndarray,
    hr_image: np.ndarray,
    lr_image: np.ndarray | None = None,
    *,
    scale: Sequence[int] | None = None,
    valid: np.ndarray | None = None,
    degrade: Callable[[np.ndarray], np.ndarray] | None = None,
) -> list[dict[str, float]]:
    """Return the SR metrics of one case for each channel; see `sr_metrics`."""
    _check_sr_shapes(sr_image, hr_image, valid)
    images = {"": sr_image}
    redegraded: dict[str, np.ndarray] = {}
    if lr_image is not None:
        scale = _scale_of(sr_image, lr_image) if scale is None else tuple(scale)
        images |= {f"{name}_": f(lr_image, scale) for name, f in BASELINES.items()}
        if degrade is not None:
            redegraded = {
                name: degrade(pad_to_multiple(np.asarray(image, dtype=np.float32), scale))
                for name, image in images.items()
            }
    inside = tuple(slice(n) for n in hr_image.shape[1:])
    channels = []
    for c, reference in enumerate(hr_image):
        quality = _Quality(reference, valid)
        row: dict[str, float] = {}
        for name, image in images.items():
            values = quality.of(image[c][inside])
            if name in redegraded:
                values["lr_consistency_psnr_db"] = quality.consistency(
                    redegraded[name][c], lr_image[c]
                )
            row |= {f"{name}{key}": value for key, value in values.items()}
        for baseline in BASELINES if lr_image is not None else ():
            for where in ("body", "whole"):
                gain = row[f"psnr_{where}_db"] - row[f"{baseline}_psnr_{where}_db"]
                row[f"psnr_{where}_gain_over_{baseline}_db"] = gain
        channels.append(row)
    return channels


def mean_metrics(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return the mean of each column over the rows where it is a finite number; else NaN."""
    return {
        key: float(np.mean(values)) if (values := _finite(rows, key)) else _NAN
        for key in _columns(rows)
    }


def count_valid(rows: Sequence[Mapping[str, float]]) -> dict[str, int]:
    """Return for each column in how many rows it is a finite number."""
    return {key: len(_finite(rows, key)) for key in _columns(rows)}


class _Quality:
    """What one reference channel needs once: its range, its body, where it is known."""

    def __init__(self, reference: np.ndarray, valid: np.ndarray | None) -> None:
        # The box first: a straight mask then leaves borders that every metric knows how to treat.
        self._box, self._valid = _known_part(valid)
        self._reference = reference[self._box]
        known = self._reference if self._valid is None else self._reference[self._valid]
        self._low, high = intensity_range(known) if known.size else (_NAN, _NAN)
        self._range = high - self._low
        self._body = body_mask(self._reference, self._valid)

    def of(self, image: np.ndarray) -> dict[str, float]:
        """Return the metrics of one image, NaN for a constant reference."""
        names = ("psnr_body_db", "psnr_whole_db", "ssim_body", "ssim_whole")
        values = dict.fromkeys((*names, "mae_input_units", "nmse", "hfen"), _NAN)
        image = image[self._box]
        values["mae_input_units"] = mean_absolute_error(image, self._reference, mask=self._valid)
        if self._range > 0:
            pair = (image, self._reference)
            similarity = ssim_map(
                *(a - self._low for a in pair), data_range=self._range, valid=self._valid
            )
            values |= {
                "psnr_body_db": psnr(*pair, data_range=self._range, mask=self._body),
                "psnr_whole_db": psnr(*pair, data_range=self._range, mask=self._valid),
                "ssim_body": mean_inside(similarity, self._body),
                "ssim_whole": mean_inside(similarity, None),
                "nmse": nmse(*pair, mask=self._valid),
                "hfen": hfen(*pair, mask=self._valid),
            }
        return values

    def consistency(self, redegraded: np.ndarray, lr_image: np.ndarray) -> float:
        if not self._range > 0:
            return _NAN
        return lr_consistency_psnr(redegraded, lr_image, data_range=self._range)


def _overlap(predicted: np.ndarray, true: np.ndarray, num_voxels: int) -> dict[str, float]:
    """Return nnU-Net's own metrics, under its names."""
    tp = int(np.count_nonzero(predicted & true))
    n_pred, n_ref = int(np.count_nonzero(predicted)), int(np.count_nonzero(true))
    either = n_pred + n_ref - tp
    return {
        "Dice": dice(predicted, true),
        "IoU": tp / either if either else _NAN,
        "TP": tp,
        "FP": n_pred - tp,
        "FN": n_ref - tp,
        "TN": num_voxels - either,
        "n_pred": n_pred,
        "n_ref": n_ref,
    }


def _check_sr_shapes(sr_image: np.ndarray, hr_image: np.ndarray, valid: np.ndarray | None) -> None:
    if hr_image.ndim != 4 or sr_image.ndim != 4 or len(sr_image) != len(hr_image):
        raise ValueError(
            f"SR and HR images must be (C, Z, Y, X) with as many channels, got {sr_image.shape} "
            f"and {hr_image.shape}."
        )
    if any(n < m for n, m in zip(sr_image.shape[1:], hr_image.shape[1:], strict=True)):
        raise ValueError(
            f"the SR image of shape {sr_image.shape} does not cover the reference of "
            f"{hr_image.shape}."
        )
    _check_valid(valid, hr_image.shape[1:])


def _check_valid(valid: np.ndarray | None, shape: tuple[int, ...]) -> None:
    if valid is not None and valid.shape != shape:
        raise ValueError(f"valid has shape {valid.shape}, the reference {shape}.")


def _known_part(valid: np.ndarray | None) -> tuple[tuple[slice, ...], np.ndarray | None]:
    """Return the bounding box of a mask, and the mask inside it; None where that is all True."""
    if valid is None or not valid.any():
        return (slice(None),) * 3, valid
    axes = range(valid.ndim)
    runs = [np.flatnonzero(valid.any(axis=tuple(a for a in axes if a != axis))) for axis in axes]
    box = tuple(slice(int(run[0]), int(run[-1]) + 1) for run in runs)
    return box, None if valid[box].all() else valid[box]


def _scale_of(sr_image: np.ndarray, lr_image: np.ndarray) -> tuple[int, ...]:
    """Return the scale between two shapes; the SR image may lack the last voxels of its padding."""
    scale = tuple(
        -(-n_sr // n_lr) for n_sr, n_lr in zip(sr_image.shape[1:], lr_image.shape[1:], strict=True)
    )
    padded = tuple(-(-n // s) for n, s in zip(sr_image.shape[1:], scale, strict=True))
    if padded != lr_image.shape[1:] or len(lr_image) != len(sr_image):
        raise ValueError(
            f"an SR image of shape {sr_image.shape} is no whole-number refinement of an LR image "
            f"of {lr_image.shape}."
        )
    return scale


def _columns(rows: Sequence[Mapping[str, float]]) -> list[str]:
    return list(dict.fromkeys(key for row in rows for key in row))


def _finite(rows: Sequence[Mapping[str, float]], key: str) -> list[float]:
    return [row[key] for row in rows if key in row and np.isfinite(row[key])]
