"""The tables of a comparison and what has to be said below them, for Markdown and HTML alike."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from srseg.evaluation.compare.records import READS_HR, READS_LABELS, READS_LR, Facts
from srseg.evaluation.compare.statistics import LEAST_GROUPS, NUM_RESAMPLES, SEED, Estimate
from srseg.evaluation.compare.summary import TESTED, Summary

NONE = "-"
MARKS = {READS_LR: "", READS_HR: " †", READS_LABELS: " ‡"}
HEADINGS = {  # metric: (heading, digits)
    "Dice": ("Dice", 4),
    "IoU": ("IoU", 4),
    "nsd_hr_voxel": ("NSD at one HR voxel", 4),
    "nsd_lr_voxel": ("NSD at one LR voxel", 4),
    "hd95_mm": ("HD95, mm", 2),
    "volume_error_percent": ("volume error, %", 1),
    "psnr_body_db": ("PSNR in the body, dB", 2),
    "psnr_body_gain_over_cubic_db": ("SR gain, dB", 2),
    "psnr_body_gain_over_sinc_db": ("gain over sinc, dB", 2),
    "ssim_body": ("SSIM in the body", 4),
    "lr_consistency_psnr_db": ("LR consistency, dB", 1),
}
_MAIN = ("Dice", "nsd_hr_voxel", "hd95_mm", "psnr_body_gain_over_cubic_db")
_FURTHER = (
    "IoU",
    "nsd_lr_voxel",
    "volume_error_percent",
    "psnr_body_db",
    "psnr_body_gain_over_sinc_db",
    "ssim_body",
    "lr_consistency_psnr_db",
)
_MARK_NOTES = {
    READS_HR: "† reads the HR image: a bound, not a method for LR scans.",
    READS_LABELS: "‡ labels are the true ones, brought to the LR grid (argmax of the area-averaged "
    "one-hot) and back (linear one-hot; nearest for interpolate_nearest): what a perfect "
    "segmentation of the LR grid would give. The image is the interpolated LR image.",
}


@dataclass(frozen=True)
class Table:
    """Text cells; the first column is left-aligned.

    Attributes:
        title: of the table.
        heading: of the columns.
        rows: as many cells each.
        notes: sentences below it.
    """

    title: str
    heading: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()


def title_of(summary: Summary) -> str:
    """Return the heading of the page."""
    setting = summary.comparison.setting
    return f"{setting.dataset}, {setting.configuration}, fold {setting.fold}"


def introduction(summary: Summary) -> str:
    """Return one paragraph: how many cases, the reference, the grid."""
    comparison = summary.comparison
    num_cases, setting = len(comparison.cases), comparison.setting
    where = "the fold's validation" if setting.cases == "validation" else "a test folder"
    grouped = f" in {_counted(summary.num_groups, 'group')}"
    if summary.num_groups == num_cases:
        grouped = ""
    scales = [s.facts for s in comparison.methods.values() if s.facts.scale is not None]
    grid = ""
    if scales:
        grid = f" Scale {scales[0].scale} to {scales[0].hr_spacing_mm} mm (Z, Y, X)."
    reference = summary.reference or "none (no method reads LR images only)"
    cases = _counted(num_cases, "case")
    return f"{cases} of {where}{grouped}, plans {setting.plans}.{grid} Reference: {reference}."


def tables(summary: Summary) -> list[Table]:
    """Return all tables, in order."""
    found = [_main(summary)]
    if summary.against:
        found.append(_against(summary))
    if len(summary.comparison.label_names) > 1:
        found.append(_per_label(summary))
    found += [_further(summary), _cost(summary)]
    return found


def shown_name(summary: Summary, method: str) -> str:
    """Return a method's name with its mark."""
    return f"{method}{MARKS[summary.comparison.reads(method)]}"


def estimate_text(estimate: Estimate, digits: int, sign: str = "") -> str:
    """Return `0.867 [0.861, 0.872]`, without interval where there is none.

    Args:
        estimate: number with interval.
        digits: after the point.
        sign: "+" shows it on positive numbers too.
    """
    if not math.isfinite(estimate.value):
        return NONE
    text = _fixed(estimate.value, digits, sign)
    if not math.isfinite(estimate.low):
        return text
    return f"{text} [{_fixed(estimate.low, digits, sign)}, {_fixed(estimate.high, digits, sign)}]"


def p_text(p: float) -> str:
    """Return a p-value with the digits that mean something."""
    if not math.isfinite(p):
        return NONE
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def _main(summary: Summary) -> Table:
    heading = ["method", *(HEADINGS[metric][0] for metric in _MAIN)]
    rows = []
    for name in summary.order:
        row = [shown_name(summary, name)]
        row += [estimate_text(summary.means[name][metric], HEADINGS[metric][1]) for metric in _MAIN]
        if summary.gap:
            row.append(_gap_text(summary, name))
        rows.append(tuple(row))
    if summary.gap:
        heading.append("oracle gap closed")
    kinds = [summary.comparison.reads(name) for name in summary.order]
    notes = [note for kind, note in _MARK_NOTES.items() if kind in kinds]
    notes += [
        f"Mean [95 % interval]: percentile bootstrap, {NUM_RESAMPLES} resamples of groups, seed "
        f"{SEED}. Segmentation metrics are means over the labels; SR gain is PSNR in the body over "
        "the face-aligned cubic B-spline of the LR image.",
        *_missing_values(summary),
        *summary.gap_notes,
    ]
    return Table("Quality on the HR grid", tuple(heading), tuple(rows), tuple(notes))


def _gap_text(summary: Summary, name: str) -> str:
    return estimate_text(summary.gap[name], 2) if name in summary.gap else NONE


def _missing_values(summary: Summary) -> list[str]:
    """Say where a mean is not over all cases and labels: neither mask has the label there."""
    comparison = summary.comparison
    missing = {}
    for name in summary.order:
        known = np.isfinite(comparison.values(name, "Dice"))
        if not known.all():
            missing[name] = f"{name} {int(known.sum())}"
    if not missing:
        return []
    total = len(comparison.cases) * len(comparison.label_names)
    return [
        f"Dice exists in fewer than all {total} pairs of case and label (neither mask has the "
        f"label there): {', '.join(missing.values())}."
    ]


def _against(summary: Summary) -> Table:
    metrics = [m for m in TESTED if any(m in row for row in summary.against.values())]
    heading = ["method"]
    for metric in metrics:
        heading += [HEADINGS[metric][0], "p"]
    rows = []
    for name in summary.order:
        if not summary.against.get(name):
            continue
        row = [shown_name(summary, name)]
        for metric in metrics:
            against = summary.against[name].get(metric)
            if against is None:
                row += [NONE, NONE]
                continue
            digits = HEADINGS[metric][1]
            row += [estimate_text(against.difference, digits, "+"), p_text(against.p)]
        rows.append(tuple(row))
    notes = [
        "Mean of the paired differences, method minus reference, with 95 % interval; p: two-sided "
        "Wilcoxon signed-rank test of the groups' mean differences, Holm-corrected over the "
        "methods in the column."
    ]
    if summary.num_groups < LEAST_GROUPS:
        notes.append(
            f"No p-values with {_counted(summary.num_groups, 'group')}: {LEAST_GROUPS} are needed."
        )
    return Table(f"Against {summary.reference}", tuple(heading), tuple(rows), tuple(notes))


def _per_label(summary: Summary) -> Table:
    names = summary.comparison.label_names
    rows = tuple(
        (
            shown_name(summary, name),
            *(estimate_text(summary.label_dice[name][label], 4) for label in names),
        )
        for name in summary.order
    )
    columns = (
        text if label == text else f"{text.replace('_', ' ')} ({label})"
        for label, text in names.items()
    )
    return Table("Dice of each label", ("method", *columns), rows)


def _further(summary: Summary) -> Table:
    rows = []
    for name in summary.order:
        values = [summary.means[name][metric].value for metric in _FURTHER]
        digits = [HEADINGS[metric][1] for metric in _FURTHER]
        cells = [_number(v, d) for v, d in zip(values, digits, strict=True)]
        rows.append((shown_name(summary, name), *cells))
    heading = ("method", *(HEADINGS[metric][0] for metric in _FURTHER))
    return Table("Further means", heading, tuple(rows))


def _cost(summary: Summary) -> Table:
    heading = [
        "method",
        "steps",
        "batch",
        "minutes trained",
        "s per case",
        "peak memory, GiB",
        "weights, M",
        "kFLOP per HR voxel",
    ]
    facts = {name: summary.comparison.methods[name].facts for name in summary.order}
    on_gpu = any(f.peak_gpu_memory_gib is not None for f in facts.values())
    if on_gpu:
        heading.append("peak GPU memory, GiB")
    rows = tuple((shown_name(summary, n), *_costs(f, on_gpu=on_gpu)) for n, f in facts.items())
    devices = sorted({f.device for f in facts.values() if f.device is not None})
    notes = (
        f"Predicted on: {', '.join(devices) or 'unknown'}. Seconds (from files to files, without "
        "loading the model) and peak memory of the process are of a fresh one for each model. "
        "FLOPs are of one forward pass without flips, convolutions and matrix products only.",
    )
    return Table("Costs", tuple(heading), rows, notes)


def _costs(facts: Facts, *, on_gpu: bool) -> Sequence[str]:
    cells = [
        NONE if facts.steps is None else str(facts.steps),
        NONE if facts.batch_size is None else str(facts.batch_size),
        _number(facts.training_minutes, 1),
        _number(facts.seconds_per_case, 2),
        _number(facts.peak_memory_gib, 2),
        _number(None if facts.parameters is None else facts.parameters / 1e6, 2),
        _number(None if facts.flops_per_hr_voxel is None else facts.flops_per_hr_voxel / 1e3, 1),
    ]
    return [*cells, _number(facts.peak_gpu_memory_gib, 2)] if on_gpu else cells


def _fixed(value: float, digits: int, sign: str = "") -> str:
    text = f"{value:{sign}.{digits}f}"
    return text.replace("-", sign) if float(text) == 0 else text  # no "-0.0"


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _number(value: float | None, digits: int) -> str:
    return NONE if value is None or not math.isfinite(value) else f"{value:.{digits}f}"
