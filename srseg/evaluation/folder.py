"""A folder of predictions against a folder of references: its cases and their means."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from srseg.evaluation.case import CaseEvaluation, CaseFiles
from srseg.evaluation.context import Context, find_context
from srseg.metrics.image import RANGE_PERCENTILES
from srseg.metrics.summary import Label, count_valid, mean_metrics
from srseg.preprocessing.case_files import files_by_case
from srseg.preprocessing.workers import for_each_case

logger = logging.getLogger(__name__)

RESAMPLED = (
    "resampled onto the predicted grid in world coordinates where they lie on another one; voxels "
    "outside their field of view are in no metric"
)
SR_FOLDER = "sr"  # below the predictions: nnU-Net's tools take every file beside masks for a mask


@dataclass(frozen=True)
class Evaluation:
    """All numbers of a folder.

    Attributes:
        segmentation: per case and label, with means and counts, in the form of nnU-Net's
            summary.json (keys are labels or regions, not yet text).
        sr: per case, with means and counts; None where no SR image was judged.
        label_names: what dataset.json calls the labels.
    """

    segmentation: dict[str, Any]
    sr: dict[str, Any] | None
    label_names: dict[Label, str]


def evaluate_folder(
    gt_folder: str | Path,
    pred_folder: str | Path,
    *,
    hr_images: str | Path | None = None,
    lr_images: str | Path | None = None,
    context: Context | None = None,
    num_processes: int = 1,
    chill: bool = False,
    resample_references: bool = False,
) -> Evaluation:
    """Return the metrics of every case with a reference and a prediction.

    SR images are taken from `pred_folder/sr`. They are compared with HR images; the LR images for
    the baselines and for LR consistency come from `lr_images`, else from the folder that was
    predicted from if it is still there, else they are simulated from the HR images by the planned
    degradation.

    Args:
        gt_folder: HR label maps `<case><ending>`.
        pred_folder: predicted label maps of the same names.
        hr_images: folder of `<case>_0000<ending>` files; without it SR images are only checked for
            LR consistency.
        lr_images: folder of the LR images that were predicted from.
        context: what is known of the predictions; by default found in their folder.
        num_processes: cases at a time.
        chill: allow references without a prediction.
        resample_references: bring labels and HR images of another scan, such as a real pair's, onto
            the predicted grid; what lies outside their field of view is left out of all metrics.

    Raises:
        FileNotFoundError: if a folder or a case's file is missing.
        ValueError: if a case's files do not belong together.
        RuntimeError: for what goes wrong with one case in a worker, naming the case.
    """
    gt_folder, pred_folder = Path(gt_folder), Path(pred_folder)
    for folder in (gt_folder, pred_folder, hr_images, lr_images):
        if folder is not None and not Path(folder).is_dir():
            raise FileNotFoundError(f"the folder {folder} does not exist.")
    if context is None:
        context = find_context(pred_folder, gt_folder)
    cases = _cases(gt_folder, pred_folder, context.file_ending, chill=chill)
    cases = _with_images(cases, pred_folder, hr_images, lr_images, context)
    results = for_each_case(
        CaseEvaluation(context, resample_references),
        {files.case: files for files in cases},
        num_processes=num_processes,
        description="Evaluating cases",
    )
    ordered = [results[files.case] for files in cases]
    sr_rows = [result["sr"] for result in ordered if result["sr"] is not None]
    segmentation = _segmentation_summary(
        [result["segmentation"] for result in ordered], context.labels
    )
    sr = _sr_summary(sr_rows) if sr_rows else None
    if resample_references:
        for summary in (segmentation, sr):
            if summary is not None:
                summary["references"] = RESAMPLED
    return Evaluation(segmentation, sr, context.label_names)


def _cases(gt_folder: Path, pred_folder: Path, file_ending: str, *, chill: bool) -> list[CaseFiles]:
    """Return the cases with a reference and a prediction, by name."""
    references, predictions = (
        {
            file.name.removesuffix(file_ending): file
            for file in sorted(folder.iterdir())
            if file.is_file() and file.name.endswith(file_ending)
        }
        for folder in (gt_folder, pred_folder)
    )
    missing = [case for case in references if case not in predictions]
    unknown = [case for case in predictions if case not in references]
    if len(missing) == len(references):
        raise FileNotFoundError(
            f"no case has both a reference in {gt_folder} and a prediction in {pred_folder} "
            f"(<case>{file_ending})."
        )
    if missing and not chill:
        raise FileNotFoundError(
            f"{len(missing)} of {len(references)} references have no prediction in {pred_folder}: "
            f"{_some(missing)}; --chill leaves them out."
        )
    if unknown:
        logger.warning("predictions without a reference are left out: %s", _some(unknown))
    return [
        CaseFiles(case, file, predictions[case])
        for case, file in references.items()
        if case in predictions
    ]


def _with_images(
    cases: Sequence[CaseFiles],
    pred_folder: Path,
    hr_images: str | Path | None,
    lr_images: str | Path | None,
    context: Context,
) -> list[CaseFiles]:
    """Return the cases with their SR, HR and LR images."""
    sr_folder = pred_folder / SR_FOLDER
    if not sr_folder.is_dir():
        if hr_images is not None:
            raise FileNotFoundError(f"{pred_folder} has no folder '{SR_FOLDER}' with SR images.")
        return list(cases)
    if hr_images is None:
        logger.info("without HR images (-hr_images) the SR images are not compared with any.")
    ending = context.file_ending
    sr_files = files_by_case(sr_folder, ending)
    hr_files = {} if hr_images is None else files_by_case(Path(hr_images), ending)
    lr_folder = lr_images or context.recorded_input
    lr_files = {} if lr_folder is None else files_by_case(Path(lr_folder), ending)
    found = []
    for files in cases:
        wanted = [(sr_folder, sr_files)]
        wanted += [] if hr_images is None else [(Path(hr_images), hr_files)]
        wanted += [] if lr_images is None else [(Path(lr_images), lr_files)]
        for folder, there in wanted:
            if files.case not in there:
                raise FileNotFoundError(
                    f"case {files.case} has no image {files.case}_0000{ending} in {folder}."
                )
        found.append(
            CaseFiles(
                files.case,
                files.reference,
                files.prediction,
                sr_files[files.case],
                hr_files.get(files.case, ()),
                lr_files.get(files.case, ()),
            )
        )
    return found


def _segmentation_summary(
    cases: Sequence[Mapping[str, Any]], labels: Sequence[Label]
) -> dict[str, Any]:
    rows = {label: [case["metrics"][label] for case in cases] for label in labels}
    mean = {label: mean_metrics(rows[label]) for label in labels}
    return {
        "num_cases": len(cases),
        "foreground_mean": mean_metrics(list(mean.values())),
        "mean": mean,
        "n_valid": {label: count_valid(rows[label]) for label in labels},
        "metric_per_case": list(cases),
    }


def _sr_summary(cases: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    rows = [{k: v for k, v in case.items() if isinstance(v, float | int)} for case in cases]
    low, high = RANGE_PERCENTILES
    return {
        "num_cases": len(cases),
        "data_range": f"between percentiles {low} and {high} of the HR reference, per channel",
        "mean": mean_metrics(rows),
        "n_valid": count_valid(rows),
        "metric_per_case": list(cases),
    }


def _some(names: Sequence[str], most: int = 5) -> str:
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")
