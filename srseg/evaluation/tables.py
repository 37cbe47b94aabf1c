"""An evaluation as files (JSON, CSV) and as a compact table for the terminal."""

from __future__ import annotations

import csv
import io
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from srseg.evaluation.case import COVERAGE
from srseg.evaluation.folder import SR_FOLDER, Evaluation
from srseg.metrics.baselines import BASELINES
from srseg.planning.json_file import as_text

_SEGMENTATION_COLUMNS = (  # heading, metric, digits
    ("Dice", "Dice", 4),
    ("NSD HR voxel", "nsd_hr_voxel", 4),
    ("NSD LR voxel", "nsd_lr_voxel", 4),
    ("HD95 mm", "hd95_mm", 2),
    ("volume error %", "volume_error_percent", 1),
)
_SR_COLUMNS = (
    ("PSNR body dB", "psnr_body_db", 2),
    ("PSNR whole dB", "psnr_whole_db", 2),
    ("SSIM body", "ssim_body", 4),
    ("SSIM whole", "ssim_whole", 4),
    ("LR consistency dB", "lr_consistency_psnr_db", 2),
)


def write_evaluation(
    evaluation: Evaluation, pred_folder: str | Path, output_file: str | Path | None = None
) -> list[Path]:
    """Return the files written: JSON and CSV of the segmentations, and of the SR images.

    By default `summary.json`, `summary.csv` (a row per case and label) and `summary_mean.csv` (a
    row per label and metric) in the folder of the predictions, and `sr/summary_sr.json`,
    `sr/summary_sr.csv` (a row per case and channel) and `sr/summary_sr_mean.csv`. With
    `output_file` `X.json`, the others are `X.csv`, `X_mean.csv`, `X_sr.json` and so on beside it.
    Values that are no finite number (NaN, infinity) are null in JSON and empty in CSV.

    Raises:
        ValueError: if `output_file` does not end with .json.
    """
    if output_file is None:
        base = Path(pred_folder) / "summary"
        sr_base = Path(pred_folder) / SR_FOLDER / "summary_sr"
    else:
        output_file = Path(output_file)
        if output_file.suffix != ".json":
            raise ValueError(f"the output file must end with .json, got '{output_file}'.")
        base = output_file.with_suffix("")
        sr_base = base.with_name(f"{base.name}_sr")
    texts = _texts(base, evaluation.segmentation, segmentation_rows(evaluation))
    if evaluation.sr is not None:
        texts |= _texts(sr_base, evaluation.sr, sr_rows(evaluation))
    for file, text in texts.items():
        _write_whole(file, text)
    return list(texts)


def segmentation_rows(evaluation: Evaluation) -> list[dict[str, Any]]:
    """Return a row per case and label, units in the column names."""
    rows = []
    for case in evaluation.segmentation["metric_per_case"]:
        tolerances = {f"tolerance_{k}_mm": mm for k, mm in case["tolerances_mm"].items()}
        for label, metrics in case["metrics"].items():
            name = evaluation.label_names[label]
            row = {"case": case["case"], "label": str(label), "name": name}
            known = {COVERAGE: case[COVERAGE]} if COVERAGE in case else {}
            rows.append({**row, **metrics, **tolerances, **known})
    return rows


def sr_rows(evaluation: Evaluation) -> list[dict[str, Any]]:
    """Return a row per case and channel, units in the column names."""
    if evaluation.sr is None:
        return []
    rows = []
    for case in evaluation.sr["metric_per_case"]:
        for number, channel in enumerate(case.get("channels", [case])):
            metrics = {k: v for k, v in channel.items() if k not in ("case", "lr_images")}
            row = {"case": case["case"], "channel": number}
            rows.append({**row, **metrics, "lr_images": case["lr_images"]})
    return rows


def text_table(evaluation: Evaluation) -> str:
    """Return the means as text: a line per label, and one per SR method."""
    summary = evaluation.segmentation
    num_cases = summary["num_cases"]
    lines = [
        [
            f"{name} ({label})" if str(label) != name else name,
            *_cells(summary["mean"][label], _SEGMENTATION_COLUMNS),
            f"{summary['n_valid'][label]['Dice']}/{num_cases}",
        ]
        for label, name in evaluation.label_names.items()
    ]
    if len(lines) > 1:
        lines.append(["mean", *_cells(summary["foreground_mean"], _SEGMENTATION_COLUMNS), ""])
    heading = ["segmentation", *(column[0] for column in _SEGMENTATION_COLUMNS), "cases"]
    blocks = [_aligned([heading, *lines]) + _coverage_line(summary["metric_per_case"])]
    if evaluation.sr is not None:
        blocks.append(_sr_block(evaluation.sr))
    return "\n\n".join(blocks)


def _coverage_line(cases: Sequence[Mapping[str, Any]]) -> str:
    """Return what to say of references that were allowed to be resampled, else nothing."""
    shares = [case[COVERAGE] for case in cases if COVERAGE in case]
    if not shares:
        return ""
    return (
        f"\n(references on the predicted grid: {min(shares):.0%} to {max(shares):.0%} of its "
        f"voxels lie in their field of view, the others are in no metric)"
    )


def _sr_block(summary: Mapping[str, Any]) -> str:
    mean = summary["mean"]
    lines = [["SR image", *(column[0] for column in _SR_COLUMNS)]]
    for name, prefix in (("srseg", ""), *((name, f"{name}_") for name in BASELINES)):
        method = {key: mean.get(f"{prefix}{key}", math.nan) for _, key, _ in _SR_COLUMNS}
        if not all(math.isnan(value) for value in method.values()):
            lines.append([name, *_cells(method, _SR_COLUMNS)])
    gains = [
        [f"srseg - {name}", *(f"{mean[f'psnr_{w}_gain_over_{name}_db']:+.2f}" for w in where)]
        for name in BASELINES
        if f"psnr_body_gain_over_{name}_db" in mean
        for where in [("body", "whole")]
    ]
    empty = [""] * (len(_SR_COLUMNS) - 2)
    table = _aligned([*lines, *([*gain, *empty] for gain in gains)])
    return f"{table}\n({summary['num_cases']} cases; data range: {summary['data_range']})"


def _cells(row: Mapping[str, float], columns: Sequence[tuple[str, str, int]]) -> list[str]:
    values = [(row.get(key, math.nan), digits) for _, key, digits in columns]
    return ["-" if math.isnan(value) else f"{value:.{digits}f}" for value, digits in values]


def _aligned(lines: Sequence[Sequence[str]]) -> str:
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def _texts(base: Path, summary: Mapping[str, Any], rows: list[dict[str, Any]]) -> dict[Path, str]:
    return {
        base.with_name(f"{base.name}.json"): as_text(_finite(summary)),
        base.with_name(f"{base.name}.csv"): _csv(rows),
        base.with_name(f"{base.name}_mean.csv"): _csv(_mean_rows(summary)),
    }


def _mean_rows(summary: Mapping[str, Any]) -> Iterable[dict[str, Any]]:
    """Yield a row per metric (and label): its mean, and over how many of the cases that is."""
    means, counts = summary["mean"], summary["n_valid"]
    if not all(isinstance(value, Mapping) for value in means.values()):
        means, counts = {"": means}, {"": counts}
    for label, metrics in means.items():
        for metric, value in metrics.items():
            row = {"label": str(label)} if label != "" else {}
            counted = {"n_valid": counts[label][metric], "num_cases": summary["num_cases"]}
            yield {**row, "metric": metric, "mean": value, **counted}


def _csv(rows: Iterable[dict[str, Any]]) -> str:
    rows = [{key: _finite(value) for key, value in row.items()} for row in rows]
    columns = list(dict.fromkeys(key for row in rows for key in row))
    with io.StringIO(newline="") as stream:
        writer = csv.DictWriter(stream, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        return stream.getvalue()


def _finite(value: Any) -> Any:
    """Return `value` with numbers that JSON does not know as None, and keys as text."""
    if isinstance(value, Mapping):
        return {str(key): _finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(entry) for entry in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _write_whole(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    unfinished = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    try:
        unfinished.write_text(text, encoding="utf-8")
        unfinished.replace(file)
    finally:
        unfinished.unlink(missing_ok=True)
