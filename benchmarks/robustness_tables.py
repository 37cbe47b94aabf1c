"""What a robustness report compares, and its tables: from the files of single combinations."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

SHIFTS = ("none", "contrast", "bias", "noise", "kernel", "all")
ADAPTERS = ("none", "histogram", "cyclegan", "munit", "bicyclegan", "unit", "vama")
KNOWN = (*SHIFTS, "tissue")  # a shift that is not asked for by default
COLUMNS = {  # of the tables -> (file below the predictions, key of its means)
    "dice": ("summary.json", "Dice"),
    "sr_psnr_db": ("sr/summary_sr.json", "psnr_body_db"),
    "sr_ssim": ("sr/summary_sr.json", "ssim_body"),
    "gain_db": ("sr/summary_sr.json", "psnr_body_gain_over_cubic_db"),
}


def means_of(predictions: Path) -> dict[str, float | int | None]:
    """Return the columns that srseg_evaluate wrote for a folder, and the number of cases."""
    summaries = {
        name: json.loads((predictions / name).read_text(encoding="utf-8"))
        for name in dict.fromkeys(name for name, _ in COLUMNS.values())
    }
    means = {
        "summary.json": summaries["summary.json"]["foreground_mean"],
        "sr/summary_sr.json": summaries["sr/summary_sr.json"]["mean"],
    }
    row = {column: means[name][key] for column, (name, key) in COLUMNS.items()}
    return {"num_cases": summaries["summary.json"]["num_cases"], **row}


def all_rows(folder: Path) -> list[dict[str, Any]]:
    """Return the rows of all combinations that a report has, earlier runs' too, in fixed order."""
    files = (folder / "rows").glob("*.json")
    rows = [json.loads(file.read_text(encoding="utf-8")) for file in files]
    return sorted(rows, key=lambda r: (KNOWN.index(r["shift"]), ADAPTERS.index(r["adapter"])))


def table(rows: Sequence[Mapping[str, Any]], settings: Mapping[str, Any]) -> str:
    """Return the Markdown of rows, below the settings that they share."""
    digits = {"dice": 4, "sr_psnr_db": 2, "sr_ssim": 4, "gain_db": 2}
    lines = [
        "# Robustness",
        "",
        ", ".join(f"{name} {value}" for name, value in settings.items() if value is not None),
        "",
        "| shift | adapter | cases | Dice | SR PSNR, dB | SR SSIM | gain over cubic, dB |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        cells = [row["shift"], row["adapter"], str(row["num_cases"])]
        cells += ["-" if row[k] is None else f"{row[k]:.{n}f}" for k, n in digits.items()]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def write_tables(folder: Path, settings: Mapping[str, Any]) -> None:
    """Write the CSV and the Markdown table of all rows in a report's folder, each as a whole."""
    rows = all_rows(folder)
    unfinished = folder / ".table.tmp"
    with unfinished.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, ["shift", "adapter", "num_cases", *COLUMNS])
        writer.writeheader()
        writer.writerows(rows)
    unfinished.replace(folder / "robustness.csv")
    unfinished.write_text(table(rows, settings), encoding="utf-8")
    unfinished.replace(folder / "robustness.md")
