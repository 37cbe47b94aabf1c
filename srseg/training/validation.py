"""Whole-case validation of a fold: predictions as files, nnU-Net's summary, and the SR summary."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nnunetv2.evaluation.evaluate_predictions import compute_metrics_on_folder
from nnunetv2.utilities.label_handling.label_handling import LabelManager
from torch import nn

from srseg import environment
from srseg.degradation.degradation import degradation_from_plans
from srseg.degradation.spec import DegradationSpec
from srseg.images.checks import read_segmentation
from srseg.images.write import write_segmentation
from srseg.inference.predictor import Predictor
from srseg.metrics.summary import mean_metrics, sr_metrics
from srseg.plans.managers import SRSegConfigurationManager, SRSegPlansManager
from srseg.preprocessing.dataset import SRSegDataset
from srseg.preprocessing.intensity import maps_of
from srseg.preprocessing.paired import onto_grid
from srseg.training.json_values import finite

logger = logging.getLogger(__name__)

_BYTES_PER_WORKER = 700 * 2**20  # a process that imports nnU-Net


@dataclass(frozen=True)
class ValidationRequest:
    """What is validated and where it is written.

    Attributes:
        network: trained, without DDP and compile wrappers.
        plans_manager: of the merged plans.
        configuration_manager: of the trained configuration.
        dataset_json: labels, channels, file ending.
        dataset: the cases to predict (of this process).
        mirroring_axes: for test-time flips.
        device: "cuda", "cpu" or "mps".
        folder: `fold_k/validation`.
        raw_labels: folder of the dataset's label maps as they are.
        references: folder of the labels on the predicted grid: `raw_labels`, but for real pairs,
            whose labels lie on the HR scan's own grid, a folder that is written.
        save_probabilities: write them too.
        summarise: whether this process writes the summaries.
    """

    network: nn.Module
    plans_manager: SRSegPlansManager
    configuration_manager: SRSegConfigurationManager
    dataset_json: dict[str, Any]
    dataset: SRSegDataset
    mirroring_axes: Sequence[int] | None
    device: str
    folder: Path
    raw_labels: Path
    references: Path
    save_probabilities: bool = False
    summarise: bool = True


def validate(request: ValidationRequest, gather: Callable[[dict], list[dict]]) -> list[str]:
    """Predict the cases and write both summaries; return them in lines for the log.

    Args:
        request: what to validate; each process of a DDP training has its own cases.
        gather: returns the results of all processes.
    """
    scores: dict[str, dict[str, float]] = {}
    for part in gather(predict_cases(request)):
        scores |= part
    if not request.summarise:
        return []
    lines = [f"Mean Validation Dice: {write_segmentation_summary(request):.4f}"]
    if scores:
        mean = write_sr_summary(scores, request.folder / "sr")
        lines.append(
            f"Mean Validation SR PSNR: {mean['psnr_body_db']:.2f} dB in the body, "
            f"{mean['psnr_body_gain_over_cubic_db']:+.2f} dB over cubic B-spline"
        )
    return lines


def predict_cases(request: ValidationRequest) -> dict[str, dict[str, float]]:
    """Write the prediction of every case; return its SR metrics, {} for a network without SR.

    LR is the stored LR image: degraded as planned, or the real one of a pair.
    """
    predictor = Predictor.from_network(
        request.network,
        request.plans_manager,
        request.configuration_manager,
        request.dataset_json,
        mirroring_axes=request.mirroring_axes,
        device=request.device,
    )
    paired = DegradationSpec.from_json(request.configuration_manager.degradation).paired
    degrade = None if paired else _degrade(request.configuration_manager)
    scores: dict[str, dict[str, float]] = {}
    for number, case in enumerate(request.dataset.identifiers, start=1):
        logger.info("validating %s (%d of %d)", case, number, len(request.dataset.identifiers))
        hr_image, _, _, properties = request.dataset.load_case(case)
        lr_image = np.asarray(request.dataset.load_lr(case)[:])
        reads_hr = request.configuration_manager.input == "hr"
        image = np.asarray(hr_image[:]) if reads_hr else lr_image
        logits, sr_image = predictor.predict_preprocessed(torch.from_numpy(image))
        predictor.export_case(
            case,
            logits,
            sr_image,
            hr_properties=properties,
            out_folder=request.folder,
            save_probabilities=request.save_probabilities,
        )
        if paired:
            _write_reference(request, case, properties)
        if sr_image is not None:
            valid = request.dataset.load_valid(case)
            scores[case] = _sr_scores(
                sr_image.cpu().numpy(),
                np.asarray(hr_image[:]),
                lr_image,
                properties,
                valid=None if valid is None else np.asarray(valid[:])[0],
                degrade=degrade,
            )
    return scores


def _sr_scores(
    sr_image: np.ndarray,
    hr_image: np.ndarray,
    lr_image: np.ndarray,
    properties: Mapping[str, Any],
    *,
    valid: np.ndarray | None,
    degrade: Callable[[np.ndarray], np.ndarray] | None,
) -> dict[str, float]:
    """Return the SR metrics of one case in raw units on the preprocessed HR grid."""
    maps = maps_of(properties)
    raw = [
        np.stack([m.invert(channel) for m, channel in zip(maps, image, strict=True)])
        for image in (sr_image, hr_image, lr_image)
    ]
    return sr_metrics(*raw, valid=valid, degrade=degrade)


def _degrade(manager: SRSegConfigurationManager) -> Callable[[np.ndarray], np.ndarray]:
    """Return the planned degradation of raw (C, Z, Y, X) arrays."""
    degradation = degradation_from_plans(manager)
    return lambda image: degradation(torch.from_numpy(np.ascontiguousarray(image))).numpy()


def _write_reference(request: ValidationRequest, case: str, properties: Mapping[str, Any]) -> None:
    """Write a pair's labels on the predicted grid, the ignore value where the HR scan ends."""
    name = f"{case}{request.dataset_json['file_ending']}"
    reader_writer = request.plans_manager.image_reader_writer_class()
    raw, raw_properties = read_segmentation(reader_writer, request.raw_labels / name)
    labels, valid = onto_grid(
        raw,
        raw_properties,
        request.plans_manager.native(properties["shape_before_cropping"]),
        properties,
        interpolation="label",
        what=f"case {case}: the label map",
    )
    if valid is not None:
        label_manager = request.plans_manager.get_label_manager(request.dataset_json)
        labels = np.where(valid, labels, _ignore_value(label_manager))
    write_segmentation(labels, request.references / name, properties, reader_writer=reader_writer)


def _ignore_value(label_manager: LabelManager) -> int:
    """Return the dataset's ignore label, else the value that nnU-Net would want for one."""
    own = label_manager.ignore_label
    return int(max(label_manager.all_labels)) + 1 if own is None else int(own)


def write_sr_summary(scores: Mapping[str, Mapping[str, float]], folder: Path) -> dict[str, float]:
    """Write `sr/summary_sr.json` (per case and mean; not finite becomes null); return the mean."""
    mean = mean_metrics(list(scores.values()))
    content = {"mean": mean, "metric_per_case": [{"case": k, **v} for k, v in scores.items()]}
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(finite(content), indent=2, allow_nan=False)
    (folder / "summary_sr.json").write_text(text + "\n", encoding="utf-8")
    return mean


def write_segmentation_summary(request: ValidationRequest) -> float:
    """Write nnU-Net's `summary.json`; return the mean foreground Dice.

    Written references get a dataset.json that declares what to ignore, for other tools.
    """
    labels = request.plans_manager.get_label_manager(request.dataset_json)
    ignore_label = labels.ignore_label
    if request.references != request.raw_labels:
        ignore_label = _ignore_value(labels)
        names = {**request.dataset_json["labels"], "ignore": ignore_label}
        text = json.dumps({**request.dataset_json, "labels": names}, indent=2)
        (request.references / "dataset.json").write_text(text + "\n", encoding="utf-8")
    metrics = compute_metrics_on_folder(
        str(request.references),
        str(request.folder),
        str(request.folder / "summary.json"),
        request.plans_manager.image_reader_writer_class(),
        request.dataset_json["file_ending"],
        labels.foreground_regions if labels.has_regions else labels.foreground_labels,
        ignore_label,
        chill=True,
        num_processes=environment.worker_count(_BYTES_PER_WORKER),
    )
    return float(metrics["foreground_mean"]["Dice"])
