"""What the demo shows at its end: a table from `srseg_evaluate`'s files, and the picture."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from srseg.cli.demo_picture import draw_picture, slice_panels
from srseg.images.checks import read_images, read_segmentation
from srseg.metrics.baselines import upsample_cubic
from srseg.plans.managers import load_plans


def result_table(
    summary: Mapping[str, Any], sr_summary: Mapping[str, Any], labels: Mapping[int, str]
) -> list[str]:
    """Return the lines of the table: SR against cubic interpolation, and Dice per label.

    Args:
        summary: content of `summary.json`.
        sr_summary: content of `sr/summary_sr.json`.
        labels: name by label value.
    """
    mean = sr_summary["mean"]
    rows = [("", "cubic", "srseg", "gain")]
    for name, key, digits in (
        ("PSNR, body (dB)", "psnr_body_db", 2),
        ("PSNR, whole (dB)", "psnr_whole_db", 2),
        ("SSIM, body", "ssim_body", 4),
        ("SSIM, whole", "ssim_whole", 4),
    ):
        cubic, ours = mean[f"cubic_{key}"], mean[key]
        rows.append(
            (name, f"{cubic:.{digits}f}", f"{ours:.{digits}f}", f"{ours - cubic:+.{digits}f}")
        )
    for label, name in labels.items():
        dice = summary["mean"][str(label)]["Dice"]
        rows.append((f"Dice, {name.replace('_', ' ')}", "-", f"{dice:.4f}", ""))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    lines = [
        "  ".join(
            [
                row[0].ljust(widths[0]),
                *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True)),
            ]
        ).rstrip()
        for row in rows
    ]
    rule = "-" * max(map(len, lines))
    return [
        rule,
        lines[0],
        rule,
        *lines[1:],
        rule,
        f"means over {sr_summary['num_cases']} held-out subjects",
    ]


def report(root: Path, dataset_folder: Path, picture: Path) -> list[str]:
    """Return the table's lines after drawing the picture of the first held-out case.

    Args:
        root: the demo's folder, with `lr_images` and `predictions` of the held-out cases.
        dataset_folder: the raw dataset.
        picture: file to draw to.
    """
    predictions = root / "predictions"
    summary = _read(predictions / "summary.json")
    sr_summary = _read(predictions / "sr" / "summary_sr.json")
    description = _read(dataset_folder / "dataset.json")
    labels = {value: name for name, value in description["labels"].items() if value}
    case = sr_summary["metric_per_case"][0]
    captions = {
        "LR": "what the network reads",
        "cubic": f"PSNR {case['cubic_psnr_body_db']:.1f} dB",
        "SR": f"PSNR {case['psnr_body_db']:.1f} dB",
        "HR": "reference",
    }
    volumes, masks, scale = _load_case(
        root, dataset_folder, case["case"], description["file_ending"]
    )
    draw_picture(
        slice_panels(volumes, masks, scale=scale, captions=captions),
        picture,
        label_names=labels,
        heading=f"{case['case']}, not seen in training: outlines are predicted on SR, true on HR",
    )
    return result_table(summary, sr_summary, labels)


def _load_case(
    root: Path, dataset_folder: Path, case: str, ending: str
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], Sequence[int]]:
    """Return (volumes, masks) by title, each (Z, Y, X), and the scale in that order."""
    reader = load_plans(root / "predictions" / "plans.json").image_reader_writer_class()
    files = {
        "LR": root / "lr_images" / f"{case}_0000{ending}",
        "SR": root / "predictions" / "sr" / f"{case}_0000{ending}",
        "HR": dataset_folder / "imagesTs" / f"{case}_0000{ending}",
    }
    volumes = {title: read_images(reader, [file])[0][0] for title, file in files.items()}
    folders = {"SR": root / "predictions", "HR": dataset_folder / "labelsTs"}
    masks = {
        title: read_segmentation(reader, folder / f"{case}{ending}")[0][0]
        for title, folder in folders.items()
    }
    pairs = zip(volumes["SR"].shape, volumes["LR"].shape, strict=True)
    scale = tuple(hr // lr for hr, lr in pairs)
    ordered = {
        "LR": volumes["LR"],
        "cubic": upsample_cubic(volumes["LR"], scale),
        "SR": volumes["SR"],
        "HR": volumes["HR"],
    }
    return ordered, masks, scale


def _read(file: Path) -> dict[str, Any]:
    return json.loads(file.read_text(encoding="utf-8"))
