"""The numbers of one method: its prediction files through the evaluation all commands share."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from srseg.evaluation.case import CaseEvaluation, CaseFiles
from srseg.evaluation.compare.cases import CompareCase
from srseg.evaluation.compare.records import IMAGE, SEGMENTATION_METRICS, SR_METRICS
from srseg.evaluation.compare.stamp import complete, content_of, files_identity, stamped_folder
from srseg.evaluation.context import Context
from srseg.evaluation.folder import SR_FOLDER
from srseg.preprocessing.case_files import files_by_case
from srseg.preprocessing.workers import for_each_case

_VERSION = 1  # of what is computed here; another one makes earlier results stale


def evaluated(
    cases: Sequence[CompareCase],
    predictions: Path,
    context: Context,
    folder: Path,
    num_processes: int,
) -> dict[str, dict[str, dict[str, float]]]:
    """Return case -> label (or `IMAGE`) -> metric -> number of a folder of predictions.

    Args:
        cases: with their files.
        predictions: folder of `<case><ending>`, and `sr/` for methods with SR images.
        context: with plans; the same for all methods.
        folder: where the numbers are kept for the next run.
        num_processes: cases at a time.

    Raises:
        RuntimeError: naming the case that failed.
    """
    tasks = {case.name: _files(case, predictions, context.file_ending) for case in cases}
    identity = {
        "version": _VERSION,
        "files": files_identity(file for files in tasks.values() for file in _all(files)),
        "scale": context.scale,
    }
    known = content_of(folder, identity)
    if known is None:
        stamped_folder(folder, identity)
        results = for_each_case(
            CaseEvaluation(context, resample_references=not context.can_degrade),
            tasks,
            num_processes=num_processes,
            description=f"Evaluating {predictions.name}",
        )
        known = {case.name: _numbers(results[case.name]) for case in cases}
        complete(folder, identity, known)
    return {
        case: {
            label: {key: float("nan") if value is None else value for key, value in row.items()}
            for label, row in rows.items()
        }
        for case, rows in known.items()
    }


def _files(case: CompareCase, predictions: Path, ending: str) -> CaseFiles:
    sr_folder = predictions / SR_FOLDER
    sr_files = files_by_case(sr_folder, ending) if sr_folder.is_dir() else {}
    images = sr_files.get(case.name, ()) if case.hr_images else ()
    return CaseFiles(
        case.name,
        case.label,
        predictions / f"{case.name}{ending}",
        images,
        case.hr_images if images else (),
        case.lr_images if images else (),
    )


def _all(files: CaseFiles) -> list[Path]:
    images = (*files.sr_images, *files.hr_images, *files.lr_images)
    return [files.reference, files.prediction, *images]


def _numbers(result: dict[str, Any]) -> dict[str, dict[str, float | None]]:
    """Return what is kept of a case's evaluation; infinite or missing numbers are None."""
    rows = {str(label): row for label, row in result["segmentation"]["metrics"].items()}
    kept = {label: _kept(row, SEGMENTATION_METRICS) for label, row in rows.items()}
    if result["sr"] is not None:
        kept[IMAGE] = _kept(result["sr"], SR_METRICS)
    return kept


def _kept(row: dict[str, Any], names: Sequence[str]) -> dict[str, float | None]:
    finite = {name: float(row[name]) for name in names if name in row}
    return {name: v if abs(v) < float("inf") else None for name, v in finite.items()}
