"""The three files of a comparison."""

from __future__ import annotations

import os
from pathlib import Path

from srseg.evaluation.compare.csv_file import csv_text
from srseg.evaluation.compare.markdown import markdown_text
from srseg.evaluation.compare.page import html_text
from srseg.evaluation.compare.records import Comparison, check_comparable
from srseg.evaluation.compare.summary import Summary, summarise


def write_comparison(
    comparison: Comparison, output: Path, reference: str | None = None
) -> tuple[Summary, list[Path]]:
    """Return the summary of a comparison, and compare.csv, .md and .html in `output`.

    Raises:
        ValueError: if the methods cannot be compared, or the reference is none.
    """
    check_comparable(comparison)
    summary = summarise(comparison, reference)
    texts = {
        "compare.csv": csv_text(comparison),
        "compare.md": markdown_text(summary),
        "compare.html": html_text(summary),
    }
    output.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        unfinished = output / f".{name}.{os.getpid()}.tmp"
        unfinished.write_text(text, encoding="utf-8")
        unfinished.replace(output / name)
    return summary, [output / name for name in texts]
